"""What the pictures share: colours, sizes, and how a log-mel spectrogram is drawn."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK = "#1f2933"
LOGMEL_COLOURS = "magma"
TITLE_SIZE, LABEL_SIZE = 9, 8
LONGEST_TITLE = 43  # characters
TICKS = (1, 2, 5, 10)


def draw_grid_image(
    axes: Axes,
    values: NDArray[np.floating],
    *,
    seconds: float,
    mels: int,
    limits: tuple[float, float],
    colours: str = LOGMEL_COLOURS,
) -> AxesImage:
    """Values over (mels or patches, time), low frequencies at the bottom, on axes in seconds and mel bands."""
    image = axes.imshow(
        values, origin="lower", aspect="auto", interpolation="none", extent=(0.0, seconds, 0.0, float(mels)),
        cmap=colours, vmin=limits[0], vmax=limits[1],
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=TICKS))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=TICKS))
    return image


def label_axes(axes: Axes, *, left: bool, bottom: bool) -> None:
    """Names the axes of a spectrogram at the left and bottom edge of a figure, and hides the numbers elsewhere."""
    axes.tick_params(labelleft=left, labelbottom=bottom, left=left, bottom=bottom)
    if left:
        axes.set_ylabel("mel band", fontsize=LABEL_SIZE, color=INK)
    if bottom:
        axes.set_xlabel("seconds", fontsize=LABEL_SIZE, color=INK)


def set_title(axes: Axes, title: str) -> None:
    """A panel's title, at its left; file names are taken as they are, long ones without their middle."""
    if len(title) > LONGEST_TITLE:
        half = (LONGEST_TITLE - 1) // 2
        title = f"{title[:half]}…{title[-half:]}"
    axes.set_title(title, loc="left", fontsize=TITLE_SIZE, color=INK, parse_math=False)


def outline_patches(
    axes: Axes, chosen: NDArray[np.bool_], *, seconds: float, mels: int, colour: str, width: float
) -> None:
    """Outlines the chosen patches of a grid (F, T), each with a square of its own."""
    high, wide = mels / chosen.shape[0], seconds / chosen.shape[1]
    squares = [
        [(t * wide, f * high), ((t + 1) * wide, f * high), ((t + 1) * wide, (f + 1) * high),
         (t * wide, (f + 1) * high), (t * wide, f * high)]
        for f, t in np.argwhere(chosen)
    ]  # fmt: skip
    axes.add_collection(LineCollection(squares, colors=colour, linewidths=width))
    axes.set(xlim=(0.0, seconds), ylim=(0.0, mels))


def limits_of(logmel: NDArray[np.floating]) -> tuple[float, float]:
    """The range of colours for a log-mel: its extremes without a few outliers; never empty."""
    low, high = np.percentile(logmel, [1.0, 99.7])
    return float(low), float(high) if high > low else float(low) + 1.0
