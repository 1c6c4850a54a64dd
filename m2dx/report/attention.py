"""What a patch attends to in the last layer of an encoder (MSM-MAE, 4.5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from timm.layers.attention import Attention
from torch import Tensor

from m2dx.contract.errors import M2dxError
from m2dx.encoder.audio import AudioEncoder
from m2dx.model.build import evaluating
from m2dx.model.vit import Encoder
from m2dx.report.sounds import Sound
from m2dx.report.style import Picture, draw_grid_image, logmel_picture, outline_patches, panel_figure

PANEL_INCHES = (3.0, 1.55)
POINT = "#ff2d2d"


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """How strongly one patch attends to every other: the last layer, the mean over its heads.

    The weights of all patches and of the class token add up to 1.
    """

    name: str  # of the sound
    title: str
    logmel: NDArray[np.float32]  # (M, L), standardised
    point: tuple[int, int]  # (f, t), the patch that attends; f counts from the lowest frequencies
    weights: NDArray[np.float32]  # (F, T)
    to_class_token: float
    seconds: float

    @property
    def picture(self) -> Picture:
        """The map, brighter for more, with its point outlined; the title says its strongest weight."""
        strongest = float(self.weights.max())

        def draw(axes: Axes) -> None:
            mels, limits = len(self.logmel), (0.0, max(strongest, 1e-12))
            draw_grid_image(
                axes, self.weights, seconds=self.seconds, mels=mels, limits=limits, colours="viridis"
            )
            outline_point(axes, self)

        return Picture(f"{self.title}: up to {strongest:.1%}, class token {self.to_class_token:.1%}", draw)


def attention_figure(
    encoder: AudioEncoder, sounds: Sequence[Sound], points: Sequence[tuple[int, int]] | None = None
) -> Figure:
    """For each sound its log-mel and, for each point (f, t), what that patch attends to; the point is outlined in red.

    Without points, the loudest patch of each half of the sound is taken.
    """
    return draw_attention([attention_maps(encoder, sound, points) for sound in sounds])


def draw_attention(blocks: Sequence[Sequence[AttentionMap]]) -> Figure:
    """A figure of attention maps, a row for each sound. Each map has a scale of its own, from 0 to its strongest patch,
    whose weight the title says, with that of the class token.

    Raises ValueError without maps.
    """
    if not blocks or not all(blocks):
        raise ValueError("a figure needs at least one attention map of each sound")
    return panel_figure(
        [
            [logmel_picture(maps[0].name, maps[0].logmel, maps[0].seconds), *(item.picture for item in maps)]
            for maps in blocks
        ],
        inches=PANEL_INCHES,
    )


def outline_point(axes: Axes, item: AttentionMap) -> None:
    """The patch that attends, in red."""
    point = np.zeros(item.weights.shape, dtype=np.bool_)
    point[item.point] = True
    outline_patches(axes, point, colour=POINT, width=1.6)


def attention_map(
    encoder: AudioEncoder, sound: Sound, point: tuple[int, int], *, title: str | None = None
) -> AttentionMap:
    """What the patch `point` = (f, t) attends to at the start of a sound; see `attention_maps`."""
    found = attention_maps(encoder, sound, [point])[0]
    return found if title is None else replace(found, title=title)


def attention_maps(
    encoder: AudioEncoder, sound: Sound, points: Sequence[tuple[int, int]] | None = None
) -> list[AttentionMap]:
    """Maps of several points from one pass; None: of the two points of `loud_points`.

    Takes as much of the sound, from its start, as the model's input holds; an encoder that interpolates positions takes
    all of it. Raises M2dxError for a point outside the patches of the sound.
    """
    grid = encoder.encoder.grid
    with evaluating(encoder), torch.no_grad():
        device = next(encoder.parameters()).device
        logmel = encoder.chunks(encoder.standard_logmel(sound.wav.to(device)))[0]
        heads = last_attention(encoder.encoder, logmel)  # (1, H, 1 + P, 1 + P)
    mean = heads.mean(dim=1)[0].float().cpu().numpy()  # (1 + P, 1 + P)
    shape = grid.shape[0], logmel.shape[-1] // grid.patch_size[1]
    seconds = logmel.shape[-1] * encoder.logmel.hop_length / encoder.sample_rate
    values = logmel[0, 0].float().cpu().numpy()
    maps = []
    for f, t in loud_points(values, shape) if points is None else points:
        if not (0 <= f < shape[0] and 0 <= t < shape[1]):
            raise M2dxError(
                f"a point must be in the {shape[0]} x {shape[1]} patches (frequency, time) of {sound.name}, "
                f"from (0, 0) to ({shape[0] - 1}, {shape[1] - 1}), but is ({f}, {t})"
            )
        row = mean[1 + f * shape[1] + t]
        weights, to_class_token = row[1:].reshape(shape), float(row[0])
        title = f"patch ({f}, {t})"
        maps.append(AttentionMap(sound.name, title, values, (f, t), weights, to_class_token, seconds))
    return maps


def loud_points(logmel: NDArray[np.float32], grid: tuple[int, int]) -> list[tuple[int, int]]:
    """The loudest patch of each half of a log-mel (M, L) over (F, T) patches; one if there is one column only."""
    freq, time = grid
    level = logmel.reshape(freq, len(logmel) // freq, time, -1).mean(axis=(1, 3))  # (F, T)
    points = []
    for half in np.array_split(np.arange(time), 2):
        if len(half):
            f, t = np.unravel_index(int(level[:, half].argmax()), (freq, len(half)))
            points.append((int(f), int(half[t])))
    return points


@torch.no_grad()
def last_attention(encoder: Encoder, logmel: Tensor) -> Tensor:
    """Attention of the last block, (B, H, 1 + P, 1 + P), class token first, of standardised log-mels (B, 1, M, L)."""
    tokens = encoder.with_class_token(encoder.embed(logmel))
    *before, last = encoder.trunk.blocks
    for block in before:
        tokens = block(tokens)
    return attention_weights(last.attn, last.norm1(tokens))  # type: ignore[arg-type, operator]


def attention_weights(attention: Attention, tokens: Tensor) -> Tensor:
    """Softmax of the scaled q k of each head, (B, H, K, K), from normed tokens (B, K, D).

    The blocks compute it inside a fused kernel, which does not give it out.
    """
    qkv = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, -1))  # (B, K, 3, H, width of a head)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    weights: Tensor = ((attention.q_norm(q) * attention.scale) @ attention.k_norm(k).mT).softmax(dim=-1)
    return weights
