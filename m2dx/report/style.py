"""The look of every picture: colours, sizes, and how spectrograms, patches and curves are drawn on axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from m2dx.data.logmel import LogMel, slaney_mel

INK = "#1f2933"
ACCENT = "#2f81c4"  # readable on white and on black
MASKED = "#8b9096"
LABEL_SIZE = 8
TICKS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Span:
    """What a log-mel spectrogram spans."""

    seconds: float  # from 0
    hertz: tuple[float, float]  # from the lowest frequency of its mel filters to the highest

    @classmethod
    def of(cls, logmel: LogMel, frames: int) -> Span:
        """That of so many frames of a transform."""
        return cls(frames * logmel.hop_length / logmel.sample_rate, (logmel.f_min, logmel.f_max))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Octaves that are apart: the height of each, from 0 to 1, and its frequency in words."""
        low, high = map(slaney_mel, self.hertz)
        ticks: list[tuple[float, str]] = []
        for hertz in (125 * 2**octave for octave in range(10, -1, -1)):
            height = (slaney_mel(hertz) - low) / (high - low)
            if 0.0 <= height <= 1.0 and (not ticks or ticks[-1][0] - height > 0.12):
                ticks.append((height, f"{hertz}" if hertz < 1000 else f"{hertz // 1000}k"))
        return ticks


@dataclass(frozen=True)
class Picture:
    """A title, what draws on axes, and a text for those who can't see it."""

    title: str
    draw: Callable[[Axes], object]
    label: str = ""


def draw_grid_image(
    axes: Axes,
    values: NDArray[np.floating],
    *,
    span: Span,
    limits: tuple[float, float],
    colours: str = "magma",
) -> AxesImage:
    """Values over (mels or patches, time), or their colours, on axes in seconds and Hz, low frequencies below."""
    image = axes.imshow(
        values if values.ndim == 2 else values.clip(0.0, 1.0),
        origin="lower",
        aspect="auto",
        interpolation="none",
        extent=(0.0, span.seconds, 0.0, 1.0),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=TICKS))
    axes.set_yticks(*zip(*span.ticks, strict=True))
    return image


def draw_logmel(
    axes: Axes,
    logmel: NDArray[np.floating],
    *,
    span: Span,
    limits: tuple[float, float] | None = None,
    is_masked: NDArray[np.bool_] | None = None,
) -> None:
    """A log-mel (M, L), by default with colours over its own range; the masked patches (F, T) are hidden."""
    draw_grid_image(axes, logmel, span=span, limits=limits or limits_of(logmel))
    if is_masked is not None:
        cover_patches(axes, is_masked)


def limits_of(logmel: NDArray[np.floating]) -> tuple[float, float]:
    """The range of colours for a log-mel: its extremes without a few outliers; never empty."""
    low, high = np.percentile(logmel, [1.0, 99.7])
    return float(low), float(high) if high > low else float(low) + 1.0


def outline_patches(axes: Axes, chosen: NDArray[np.bool_], *, colour: str, width: float) -> None:
    """Outlines the chosen patches of a grid (F, T) over the image on the axes, each with a square of its own."""
    _, seconds, _, top = axes.images[0].get_extent()
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
    placed = (np.argwhere(chosen)[:, None, ::-1] + corners) / chosen.shape[::-1]  # (n, 5, 2)
    squares = placed * (seconds, top)
    axes.add_collection(LineCollection(list(squares), colors=colour, linewidths=width), autolim=False)


def cover_patches(axes: Axes, chosen: NDArray[np.bool_]) -> None:
    """Hides the chosen patches of a grid (F, T) of the image on the axes in grey, with thin lines between all."""
    left, seconds, bottom, top = axes.images[0].get_extent()
    shades = np.full((*chosen.shape, 4), to_rgba(MASKED))
    shades[..., 3] = chosen
    extent = (left, seconds, bottom, top)
    axes.imshow(shades, origin="lower", aspect="auto", interpolation="none", extent=extent)
    # Patches of two frames are a pixel wide: their outline must not cover them.
    looks = {"colors": "white", "alpha": 0.55, "linewidths": min(0.45, 30.0 / max(chosen.shape))}
    axes.hlines(np.linspace(0.0, top, chosen.shape[0] + 1), 0.0, seconds, **looks)
    axes.vlines(np.linspace(0.0, seconds, chosen.shape[1] + 1), 0.0, top, **looks)
    axes.set(xlim=(0.0, seconds), ylim=(0.0, top))


def frame_curves(axes: Axes) -> None:
    """Lines at the ticks of the values instead of a frame; whole steps at the bottom, from 0 to the last."""
    axes.set_xlabel("step", fontsize=LABEL_SIZE, color=INK)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_color(INK)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.grid(axis="y", color=INK, alpha=0.13, linewidth=0.6)
    last = max((float(step) for line in axes.lines for step in np.asarray(line.get_xdata())), default=1.0)
    axes.set_xlim(0, last)
    between = MaxNLocator(4, integer=True, steps=TICKS).tick_values(0, last)
    axes.set_xticks([*(tick for tick in between if tick <= 0.7 * last), last])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.get_xticklabels()[-1].set_horizontalalignment("right")  # so that it ends where the axis does
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=TICKS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
