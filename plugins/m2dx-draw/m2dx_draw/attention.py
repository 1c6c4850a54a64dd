"""Figures of what patches attend to in the last layer of an encoder (MSM-MAE, 4.5.4)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from m2dx.encoder.audio import AudioEncoder
from m2dx.report import attention
from m2dx.report.attention import AttentionMap
from m2dx.report.style import Span
from m2dx_draw.panels import logmel_picture, panel_figure
from m2dx_draw.sounds import Sound

PANEL_INCHES = (3.0, 1.55)


def attention_figure(
    encoder: AudioEncoder, sounds: Sequence[Sound], points: Sequence[tuple[int, int]] | None = None
) -> Figure:
    """For each sound its log-mel and, for each point (f, t), what that patch attends to; the point is outlined in red.

    Without points, the loudest patch of each half of the sound is taken. All maps have one scale of colours; their
    titles say the strongest weight of each. Raises ValueError without sounds or points.
    """
    blocks = [attention_maps(encoder, sound, points) for sound in sounds]
    if not blocks or not all(blocks):
        raise ValueError("a figure needs at least one attention map of each sound")
    most = max(item.strongest for maps in blocks for item in maps)
    return panel_figure(
        [
            [
                logmel_picture(maps[0].name, maps[0].logmel, maps[0].span),
                *(item.picture(f"patch {item.point}: up to {item.strongest:.1%}", most) for item in maps),
            ]
            for maps in blocks
        ],
        inches=PANEL_INCHES,
    )


def attention_maps(
    encoder: AudioEncoder, sound: Sound, points: Sequence[tuple[int, int]] | None = None
) -> list[AttentionMap]:
    """Maps of several points from one pass; None: of the loudest patch of each half of the sound.

    Takes as much of the sound, from its start, as the model's input holds; an encoder that interpolates positions takes
    all of it. Raises M2dxError for a point outside the patches of the sound.
    """
    wav = sound.wav.to(next(encoder.parameters()).device)
    logmel = encoder.chunks(encoder.standard_logmel(wav))[0]
    span = Span.of(encoder.logmel, logmel.shape[-1])
    return attention.attention_maps(encoder.encoder, logmel, span, name=sound.name, points=points)
