"""Small pictures as data URIs, for HTML that needs no other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

LOGMEL_COLOURS, ERROR_COLOURS, ATTENTION_COLOURS = "magma", "Greys", "viridis"
MOST_COLUMNS = 640
"""Frames that a picture shows, at most; of longer inputs neighbouring ones are averaged."""
_LARGEST_PNG = 25_000  # pixels; beyond it, a spectrogram is far smaller as a JPEG
_MARK, _NO_VALUE = (255, 45, 45), (139, 144, 150)

Pixels = NDArray[np.uint8]  # (height, width, 3), from the top


@dataclass(frozen=True)
class Picture:
    """An image element."""

    source: str  # a data URI
    caption: str
    alt: str  # for those who can't see it
    width: int  # pixels
    height: int


def picture(pixels: Pixels, *, caption: str, alt: str, flat: bool = False) -> Picture:
    """An image of pixels; `flat`: of few colours (a PNG, however large), else a large one becomes a JPEG."""
    target = io.BytesIO()
    height, width = pixels.shape[:2]
    kind = "png" if flat or height * width <= _LARGEST_PNG else "jpeg"
    options = {"optimize": True} if kind == "png" else {"quality": 85}
    imsave(target, pixels, format=kind, pil_kwargs=options)
    data = base64.b64encode(target.getvalue()).decode()
    return Picture(f"data:image/{kind};base64,{data}", caption, alt, width, height)


def coloured(
    values: NDArray[np.floating], *, limits: tuple[float, float], colours: str = LOGMEL_COLOURS
) -> Pixels:
    """Values (M, L), low frequencies first, as pixels with low frequencies at the bottom; NaN: grey."""
    group = -(-values.shape[1] // MOST_COLUMNS)
    if group > 1:
        edge = np.pad(values, ((0, 0), (0, -values.shape[1] % group)), mode="edge")
        values = edge.reshape(len(values), -1, group).mean(axis=2)
    low, high = limits
    pixels = rgb(matplotlib.colormaps[colours]((values - low) / (high - low))[..., :3])
    pixels[~np.isfinite(values)[::-1]] = _NO_VALUE
    return pixels


def rgb(shares: NDArray[np.floating]) -> Pixels:
    """Pixels with low frequencies at the bottom, of red, green and blue in [0, 1]: (F, T, 3), low frequencies first."""
    bytes_: Pixels = np.round(255 * np.clip(np.nan_to_num(shares), 0.0, 1.0)).astype(np.uint8)
    return bytes_[::-1].copy()


def as_patches(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Pixels (F, T, 3), one per patch, each as a block, so that all of it is about `size` (height, width) or larger."""
    high, wide = (max(-(-whole // count), 1) for whole, count in zip(size, pixels.shape[:2], strict=True))
    return pixels.repeat(high, axis=0).repeat(wide, axis=1)


def marked(pixels: Pixels, point: tuple[int, int], grid: tuple[int, int]) -> Pixels:
    """The same picture with a red frame around the patch (f, t) of a grid (F, T); f counts from the bottom."""
    framed = pixels.copy()
    high, wide = pixels.shape[0] // grid[0], pixels.shape[1] // grid[1]
    top, left = (grid[0] - 1 - point[0]) * high, point[1] * wide
    patch = framed[top : top + high, left : left + wide]
    line = max(min(high, wide) // 8, 1)
    patch[:line] = patch[-line:] = _MARK
    patch[:, :line] = patch[:, -line:] = _MARK
    return framed
