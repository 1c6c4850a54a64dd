"""What a patch attends to in the last layer of an encoder (MSM-MAE, 4.5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from m2dx.contract.components import Backbone
from m2dx.contract.errors import M2dxError
from m2dx.model.build import evaluating
from m2dx.model.vit import Attention, Encoder, Trunk
from m2dx.report.style import Picture, Span, draw_grid_image, limits_of, outline_patches

POINT = "#ff2d2d"
COLOUR = "#ff9d1e"  # of what is attended to


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """How strongly one patch attends to every other: the last layer, the mean over its heads.

    The weights of all patches and of the class token add up to 1.
    """

    name: str  # of the sound
    logmel: NDArray[np.float32]  # (M, L), standardised
    point: tuple[int, int]  # (f, t), the patch that attends; f counts from the lowest frequencies
    weights: NDArray[np.float32]  # (F, T)

    span: Span

    def picture(self, title: str, most: float) -> Picture:
        """The log-mel in grey, under more colour where the point, in red, attends more; it is full at `most`."""

        def draw(axes: Axes) -> None:
            low, high = limits_of(self.logmel)
            light = 0.9 * np.clip((self.logmel - low) / (high - low), 0.0, 1.0)[..., None]  # (M, L, 1)
            weights = torch.from_numpy(self.weights)[None, None]
            smooth = F.interpolate(weights, self.logmel.shape, mode="bilinear")[0, 0, ..., None].numpy()
            shade = np.array(to_rgb(COLOUR)) * np.sqrt(np.clip(smooth / most, 0.0, 1.0))
            draw_grid_image(axes, light + (1.0 - light) * shade, span=self.span, limits=(0.0, 1.0))
            point = np.zeros(self.weights.shape, dtype=np.bool_)
            point[self.point] = True
            outline_patches(axes, point, colour=POINT, width=1.6)

        f, t = (int(index) for index in np.unravel_index(self.weights.argmax(), self.weights.shape))
        caption = (
            f"{title}: attention of the patch (frequency {self.point[0]}, time {self.point[1]}) of {self.name}; it is "
            f"strongest, {self.strongest:.1%}, to the patch ({f}, {t})."
        )
        return Picture(title, draw, caption)

    @property
    def strongest(self) -> float:
        """Its highest weight."""
        return max(float(self.weights.max()), 1e-12)


def attention_maps(
    encoder: Backbone,
    logmel: Tensor,
    span: Span,
    *,
    name: str,
    points: Sequence[tuple[int, int]] | None = None,
) -> list[AttentionMap]:
    """Maps of several points from one pass over a standardised log-mel (1, 1, M, L); None: those of `loud_points`.

    Raises M2dxError for a point outside the patches of the log-mel, whose sound has a name, and for another backbone
    than m2dx's own.
    """
    heads = last_attention(encoder, logmel)  # (1, H, 1 + P, 1 + P)
    mean = heads.mean(dim=1)[0].float().cpu().numpy()  # (1 + P, 1 + P)
    shape = encoder.grid.shape[0], logmel.shape[-1] // encoder.grid.patch_size[1]
    values = logmel[0, 0].float().cpu().numpy()
    maps = []
    for f, t in loud_points(values, shape) if points is None else points:
        if not (0 <= f < shape[0] and 0 <= t < shape[1]):
            raise M2dxError(
                f"a point must be in the {shape[0]} x {shape[1]} patches (frequency, time) of {name}, "
                f"from (0, 0) to ({shape[0] - 1}, {shape[1] - 1}), but is ({f}, {t})"
            )
        weights = mean[1 + f * shape[1] + t, 1:].reshape(shape)
        maps.append(AttentionMap(name, values, (f, t), weights, span))
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
def last_attention(encoder: Backbone, logmel: Tensor) -> Tensor:
    """Attention of the last block, (B, H, 1 + P, 1 + P), class token first, of standardised log-mels (B, 1, M, L)."""
    if not (isinstance(encoder, Encoder) and isinstance(encoder.trunk, Trunk)):
        raise M2dxError(f"attention is drawn of the backbone {Encoder.name}, but this one is {encoder.name}")
    with evaluating(encoder):
        tokens = encoder.with_class_token(encoder.embed(logmel))
        *before, last = encoder.trunk.blocks
        for block in before:
            tokens = block(tokens)
        return attention_weights(last.attn, last.norm1(tokens))  # type: ignore[arg-type, operator]


def attention_weights(attention: Attention, tokens: Tensor) -> Tensor:
    """Softmax of the scaled q k of each head, (B, H, K, K), from normed tokens (B, K, D).

    The blocks compute it inside a fused kernel, which does not give it out.
    """
    query, key, _ = attention.heads(tokens)  # (B, H, K, D / H)
    weights: Tensor = ((query * query.shape[-1] ** -0.5) @ key.mT).softmax(dim=-1)
    return weights
