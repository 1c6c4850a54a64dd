"""Figures of attention maps (MSM-MAE, figures 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m2dx.encoder import AudioEncoder
from m2dx.pictures.attention import AttentionMap, attention_maps
from m2dx.pictures.sounds import Sound
from m2dx.pictures.style import draw_grid_image, label_axes, limits_of, outline_patches, set_title

PANEL_INCHES = (3.0, 1.45)
POINT = "#ff2d2d"


def attention_figure(
    encoder: AudioEncoder, sounds: Sequence[Sound], points: Sequence[tuple[int, int]] | None = None
) -> Figure:
    """For each sound its log-mel and, for each point (f, t), what that patch attends to; the point is outlined in red.

    Without points, the loudest patch of each half of the sound is taken.
    """
    chosen = None if points is None else list(points)
    return draw_attention([attention_maps(encoder, sound, chosen) for sound in sounds])


def draw_attention(blocks: Sequence[Sequence[AttentionMap]]) -> Figure:
    """A figure of attention maps, a row for each sound. Each map has a scale of its own, from 0 to its strongest patch,
    whose weight the title says, with that of the class token.

    Raises ValueError without maps.
    """
    if not blocks or not all(blocks):
        raise ValueError("a figure needs at least one attention map of each sound")
    columns, rows = 1 + max(len(block) for block in blocks), len(blocks)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.3), layout="constrained")
    for row, block in enumerate(blocks):
        panels = [figure.add_subplot(rows, columns, row * columns + 1 + i) for i in range(1 + len(block))]
        _draw_logmel(panels[0], block[0])
        for axes, item in zip(panels[1:], block, strict=True):
            _draw_map(axes, item)
        for number, axes in enumerate(panels):
            label_axes(axes, left=number == 0, bottom=row == rows - 1)
    return figure


def _draw_logmel(axes: Axes, item: AttentionMap) -> None:
    mels = len(item.logmel)
    draw_grid_image(axes, item.logmel, seconds=item.seconds, mels=mels, limits=limits_of(item.logmel))
    set_title(axes, item.name)


def _draw_map(axes: Axes, item: AttentionMap) -> None:
    mels = len(item.logmel)
    strongest = float(item.weights.max())
    draw_grid_image(
        axes, item.weights, seconds=item.seconds, mels=mels, limits=(0.0, strongest), colours="viridis"
    )
    point = np.zeros(item.weights.shape, dtype=np.bool_)
    point[item.point] = True
    outline_patches(axes, point, seconds=item.seconds, mels=mels, colour=POINT, width=1.6)
    set_title(axes, f"{item.title}: up to {strongest:.1%}, class token {item.to_class_token:.1%}")
