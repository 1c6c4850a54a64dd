"""The look of every picture: colours, sizes, and how spectrograms, patches and curves are drawn on axes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

INK = "#1f2933"
ACCENT = "#2f81c4"  # readable on white and on black
MASKED = "#8b9096"
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
    """Values, or colours, over (mels or patches, time), on axes in seconds and mel bands, low frequencies below."""
    image = axes.imshow(
        values, origin="lower", aspect="auto", interpolation="none", extent=(0.0, seconds, 0.0, float(mels)),
        cmap=colours, vmin=limits[0], vmax=limits[1],
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=TICKS))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=TICKS))
    return image


def draw_logmel(
    axes: Axes,
    logmel: NDArray[np.floating],
    *,
    seconds: float,
    limits: tuple[float, float] | None = None,
) -> None:
    """A log-mel (M, L), by default with colours over its own range."""
    draw_grid_image(axes, logmel, seconds=seconds, mels=len(logmel), limits=limits or limits_of(logmel))


def limits_of(logmel: NDArray[np.floating]) -> tuple[float, float]:
    """The range of colours for a log-mel: its extremes without a few outliers; never empty."""
    low, high = np.percentile(logmel, [1.0, 99.7])
    return float(low), float(high) if high > low else float(low) + 1.0


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


def cover_patches(axes: Axes, chosen: NDArray[np.bool_], *, seconds: float, mels: int) -> None:
    """Hides the chosen patches of a grid (F, T) in grey, with thin lines between all patches."""
    grey = np.zeros((*chosen.shape, 4))
    grey[chosen] = to_rgba(MASKED)
    axes.imshow(
        grey, origin="lower", aspect="auto", interpolation="none", extent=(0.0, seconds, 0.0, float(mels))
    )
    # Patches of two frames are a pixel wide: their outline must not cover them.
    width = min(0.45, 30.0 / max(chosen.shape))
    lines = [[(0.0, y), (seconds, y)] for y in np.linspace(0.0, mels, chosen.shape[0] + 1)]
    lines += [[(x, 0.0), (x, mels)] for x in np.linspace(0.0, seconds, chosen.shape[1] + 1)]
    axes.add_collection(LineCollection(lines, colors="white", alpha=0.55, linewidths=width))
    axes.set(xlim=(0.0, seconds), ylim=(0.0, mels))


def label_axes(axes: Axes, *, left: bool = True, bottom: bool = True) -> None:
    """Names the axes of a spectrogram at the left and bottom edge of a figure, and hides the numbers elsewhere."""
    axes.tick_params(labelleft=left, labelbottom=bottom, left=left, bottom=bottom)
    if left:
        axes.set_ylabel("mel band", fontsize=LABEL_SIZE, color=INK)
    if bottom:
        axes.set_xlabel("seconds", fontsize=LABEL_SIZE, color=INK)


def set_title(
    axes: Axes, title: str, *, longest: int = LONGEST_TITLE, weight: Literal["normal", "bold"] = "normal"
) -> None:
    """A panel's title, at its left; file names are taken as they are, long ones without their middle."""
    if len(title) > longest:
        half = (longest - 1) // 2
        title = f"{title[:half]}…{title[-half:]}"
    axes.set_title(title, loc="left", fontsize=TITLE_SIZE, fontweight=weight, color=INK, parse_math=False)


def frame_curves(axes: Axes) -> None:
    """Lines at the ticks of the values instead of a frame; whole steps at the bottom, each once."""
    axes.set_xlabel("step", fontsize=LABEL_SIZE, color=INK)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_color(INK)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.grid(axis="y", color=INK, alpha=0.13, linewidth=0.6)
    axes.set_xlim(left=0)
    steps = {float(step) for line in axes.lines for step in np.asarray(line.get_xdata())}
    if len(steps) == 1:
        axes.set_xticks(list(steps))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=TICKS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
