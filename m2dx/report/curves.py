"""Curves of a run: losses, learning rate, EMA decay, RankMe, and scores by checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from m2dx.report.style import ACCENT, frame_curves
from m2dx.results.scores import Column, StepScore

Metrics = Sequence[Mapping[str, float]]
"""Lines of metrics.jsonl: each holds `step`, and any of the other names."""

METHODS = {"m2d": "M2D", "m2d_all_patches": "M2D (all patches)", "msm_mae": "MSM-MAE"}
"""The core's methods for people."""
FEW_POINTS = 30  # fewer are drawn with markers
SMOOTHED_FROM = 40  # points; a running mean of fewer says nothing
MOST_POINTS = 1500
"""Points that a curve is drawn with, at most: more can't be seen, and would make a page heavy."""
_TITLES = {
    "loss": "Total loss",
    **{f"loss_{name}": f"{title} loss" for name, title in METHODS.items()},
    "lr": "Learning rate",
    "ema_decay": "EMA decay of the target",
    "grad_norm": "Gradient norm",
    "rankme": "RankMe (effective rank)",
    "target_constant": "Constant share of the target",
    "clips_per_second": "Clips per second",
}
SCHEDULES = ("lr", "ema_decay")
RAW = (*SCHEDULES, "rankme", "target_constant")  # drawn as they are: no noise from step to step


def by_column(scores: Sequence[StepScore]) -> dict[Column, list[StepScore]]:
    """The scores of each task, protocol and metric, in the order of the steps."""
    columns: dict[Column, list[StepScore]] = {}
    for score in scores:
        columns.setdefault(score.column, []).append(score)
    return columns


def loss_names(metrics: Metrics) -> list[str]:
    """Names of the losses that occur: the total, M2D (or MSM-MAE), then the tasks."""
    names = dict.fromkeys(name for line in metrics for name in line)
    found = [name for name in names if name == "loss" or name.startswith("loss_")]
    return sorted(found, key=lambda name: (name != "loss", name not in _TITLES))


def title_of(panel: str | Column) -> str:
    """A metric's name for people, or what a column of scores measures."""
    if isinstance(panel, str):
        return _TITLES.get(panel) or f"Task loss: {panel.removeprefix('loss_')}"
    return f"{panel[0]}, {panel[1]}: {panel[2]} (%)"


def draw_metric(axes: Axes, metrics: Metrics, name: str, *, colour: str = ACCENT, width: float = 1.3) -> None:
    """One metric against the step."""
    steps, values = curve(metrics, name)
    thin = slice(None, None, max(-(-len(steps) // MOST_POINTS), 1))
    if name not in RAW and len(values) >= SMOOTHED_FROM:
        axes.plot(steps[thin], values[thin], color=colour, alpha=0.2, linewidth=0.6)
        values = smooth(values)
    axes.plot(
        steps[thin], values[thin], color=colour, linewidth=width,
        marker="o" if len(steps) <= FEW_POINTS else "", markersize=2.5,
    )  # fmt: skip
    frame_curves(axes)


def draw_scores(axes: Axes, scores: Sequence[StepScore], *, colour: str = ACCENT) -> None:
    """The scores of one column against the step, in percent, with the 95 % interval where it is known."""
    axes.errorbar(
        [item.step for item in scores],
        [100 * item.score.mean for item in scores],
        yerr=[100 * (item.score.ci95 or 0.0) for item in scores],
        color=colour, linewidth=1.3, marker="o", markersize=3, elinewidth=0.8, capsize=2,
    )  # fmt: skip
    frame_curves(axes)


def curve(metrics: Metrics, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of one metric, at the lines where it is there and finite."""
    points = [(line["step"], line[name]) for line in metrics if math.isfinite(line.get(name, math.nan))]
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred running mean over a twentieth of the values; at the ends over those that are there."""
    half, index = len(values) // 40, np.arange(len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    means: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return means
