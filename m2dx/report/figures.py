"""Figures of a run: curves of its metrics, and what masking leaves of a clip."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

Metrics = Sequence[Mapping[str, float]]
"""Lines of metrics.jsonl: each holds `step`, and any of the other names."""

View = Literal["clean", "noisy", "visible"]
VIEWS: tuple[View, ...] = ("clean", "noisy", "visible")

INK = "#1f2933"
ACCENT = "#2f81c4"  # readable on white and on black
MASKED = "#8b9096"
PANEL_INCHES = (3.2, 2.15)
"""Of a panel; it is shown about as wide as the screen of a phone, where its text should be as large as the page's."""
TITLE_SIZE, LABEL_SIZE = 11.5, 10.5
MOST_LETTERS = 32
"""Of a panel's title; more would not fit."""
MOST_POINTS = 1500
"""Points that a curve is drawn with, at most: more can't be seen, and would make the page heavy."""

TICKS = (1, 2, 5, 10)
_SMOOTHED = ("loss", "grad_norm", "clips_per_second")
_TITLES = {
    "loss": "Total loss",
    "loss_m2d": "M2D loss",
    "loss_m2d_all_patches": "M2D loss",
    "loss_msm_mae": "MSM-MAE loss",
    "lr": "Learning rate",
    "ema_decay": "EMA decay of the target",
    "grad_norm": "Gradient norm",
    "rankme": "RankMe (effective rank)",
    "clips_per_second": "Clips per second",
}


@dataclass(frozen=True)
class MaskedExample:
    """One clip as the model sees it. Raises ValueError where the shapes do not fit each other."""

    name: str
    clean: NDArray[np.floating]  # (M, L) log-mel
    noisy: NDArray[np.floating]  # (M, L) log-mel; the clean one where the recipe has no noise
    is_masked: NDArray[np.bool_]  # (F, T), true where masked
    seconds: float  # length of the clip

    def __post_init__(self) -> None:
        shape, grid = self.clean.shape, self.is_masked.shape
        if len(shape) != 2 or self.noisy.shape != shape:
            raise ValueError(f"clean and noisy must both be (M, L), but are {shape} and {self.noisy.shape}")
        if len(grid) != 2 or 0 in grid or shape[0] % grid[0] or shape[1] % grid[1]:
            raise ValueError(f"is_masked must be a patch grid (F, T) that divides {shape}, but is {grid}")
        if not self.seconds > 0:
            raise ValueError(f"seconds must be positive, but is {self.seconds}")

    @property
    def has_noise(self) -> bool:
        """Whether the noisy view differs from the clean one."""
        return not np.array_equal(self.clean, self.noisy)


def title_of(name: str) -> str:
    """A metric's name for people."""
    return _TITLES.get(name) or f"Task loss: {name.removeprefix('loss_')}"


def loss_names(metrics: Metrics) -> list[str]:
    """Names of the losses that occur: the total, M2D (or MSM-MAE), then the tasks."""
    found = dict.fromkeys(
        name for line in metrics for name in line if name == "loss" or name.startswith("loss_")
    )
    first = [name for name in ("loss", "loss_m2d", "loss_msm_mae") if name in found]
    return first + [name for name in found if name not in first]


def curve(metrics: Metrics, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of one metric, at the lines where it is there and finite."""
    points = [(line["step"], line[name]) for line in metrics if math.isfinite(line.get(name, math.nan))]
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred running mean over a twentieth of the values; at the ends over those that are there."""
    half = len(values) // 40
    if half == 0:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    means: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return means


def loss_figure(metrics: Metrics) -> Figure:
    """The total loss and each task's against the step, one panel each; raw values faint under a running mean."""
    return curves_figure(metrics, loss_names(metrics))


def curves_figure(metrics: Metrics, names: Sequence[str]) -> Figure:
    """Metrics against the step, one panel each, at most three in a row. Raises ValueError without names."""
    if not names:
        raise ValueError("a figure needs at least one metric, but the metrics hold none")
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained")
    for number, name in enumerate(names, start=1):
        _draw_curve(figure.add_subplot(rows, columns, number), metrics, name)
    return figure


def _draw_curve(axes: Axes, metrics: Metrics, name: str) -> None:
    steps, values = curve(metrics, name)
    thin = slice(None, None, max(-(-len(steps) // MOST_POINTS), 1))
    marker = "o" if len(steps) <= 30 else ""
    if name.startswith(_SMOOTHED) and len(values) >= 40:
        axes.plot(steps[thin], values[thin], color=ACCENT, alpha=0.28, linewidth=0.7)
        values = smooth(values)
    axes.plot(steps[thin], values[thin], color=ACCENT, linewidth=1.5, marker=marker, markersize=2.5)
    dress(axes, title_of(name), "step")
    thin_frame(axes, steps)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICKS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def thin_frame(axes: Axes, steps: Sequence[float] | NDArray[np.float64]) -> None:
    """Lines at the ticks of the values instead of a frame; whole steps at the bottom, each once."""
    axes.grid(axis="y", color=INK, alpha=0.13, linewidth=0.6)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if len(set(steps)) == 1:
        axes.set_xticks([float(steps[0])])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def example_figure(example: MaskedExample, views: Sequence[View] = VIEWS) -> Figure:
    """A row of log-mels on one colour scale: the clip, with noise as the model is given it, and its visible patches."""
    figure = Figure(figsize=(PANEL_INCHES[0] * len(views), PANEL_INCHES[1]), layout="constrained")
    both = np.concatenate([example.clean.ravel(), example.noisy.ravel()])
    low, high = np.nanpercentile(both, [1.0, 99.7])
    for number, view in enumerate(views, start=1):
        axes = figure.add_subplot(1, len(views), number)
        extent = (0.0, example.seconds, 0.0, float(example.clean.shape[0]))
        axes.imshow(
            example.clean if view == "clean" else example.noisy,
            origin="lower", aspect="auto", interpolation="none", extent=extent,
            cmap="magma", vmin=low, vmax=high,
        )  # fmt: skip
        if view == "visible":
            _draw_mask(axes, example, extent)
        dress(axes, view_title(example, view), "seconds")
        axes.set_ylabel("mel band", fontsize=LABEL_SIZE, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=TICKS))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=TICKS))
        axes.spines[:].set_visible(False)
    return figure


def view_title(example: MaskedExample, view: View) -> str:
    """What a picture of the example shows."""
    if view == "clean":
        return "Clean"
    if view == "noisy":
        return "With noise: what is given" if example.has_noise else "What is given (no noise)"
    return f"Visible patches ({np.mean(~example.is_masked):.0%} of {example.is_masked.size})"


def _draw_mask(axes: Axes, example: MaskedExample, extent: tuple[float, float, float, float]) -> None:
    grey = np.zeros((*example.is_masked.shape, 4))
    grey[example.is_masked] = to_rgba(MASKED)
    axes.imshow(grey, origin="lower", aspect="auto", interpolation="none", extent=extent)
    right, top = extent[1], extent[3]
    rows, columns = example.is_masked.shape
    lines = [[(0.0, y), (right, y)] for y in np.linspace(0.0, top, rows + 1)]
    lines += [[(x, 0.0), (x, top)] for x in np.linspace(0.0, right, columns + 1)]
    # Patches of two frames are a pixel wide: their outline must not cover them.
    width = min(0.6, 40.0 / max(rows, columns))
    axes.add_collection(LineCollection(lines, colors="white", alpha=0.55, linewidths=width))
    axes.set(xlim=extent[:2], ylim=extent[2:])


def dress(axes: Axes, title: str, x_label: str) -> None:
    """Title, label and colours of a panel."""
    if len(title) > MOST_LETTERS:  # a name of someone else's; the text for those who can't see has all of it
        title = f"{title[: MOST_LETTERS - 1]}…"
    axes.set_title(title, loc="left", fontsize=TITLE_SIZE, fontweight="bold", color=INK, parse_math=False)
    axes.set_xlabel(x_label, fontsize=LABEL_SIZE, color=INK)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
    axes.spines[:].set_color(INK)
    axes.patch.set_alpha(0.0)


def figure_svg(figure: Figure, *, label: str) -> str:
    """A figure as an inline SVG element that scales to its place and takes the page's text colour.

    `label` is the text for those who can't see it.
    """
    target = io.StringIO()
    figure.patch.set_alpha(0.0)
    # Text stays text, and ids depend on content only: equal ids on a page are equal elements.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "m2dx"}):
        figure.savefig(target, format="svg", metadata={"Date": None})
    svg = target.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).replace(
        INK, "currentColor"
    )
