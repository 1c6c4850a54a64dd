"""Curves of runs beside each other: losses, learning rate, EMA decay, RankMe, and scores by checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from m2dx.contract.errors import CheckpointError
from m2dx.report.style import ACCENT, INK, LABEL_SIZE, Picture, frame_curves, numbered, panel_figure
from m2dx.results.run_folder import RunFolder, read_run
from m2dx.results.scores import STEP_SCORES_FILE, Column, StepScore

Metrics = Sequence[Mapping[str, float]]
"""Lines of metrics.jsonl: each holds `step`, and any of the other names."""

SCORES = "scores"
"""The name among the curves that stands for every score by step."""
METHODS = {"m2d": "M2D", "m2d_all_patches": "M2D (all patches)", "msm_mae": "MSM-MAE"}
"""The core's methods for people."""
PANEL_INCHES = (3.6, 2.3)
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
    "clips_per_second": "Clips per second",
}
_SCHEDULES = ("lr", "ema_decay")
_RAW = (*_SCHEDULES, "rankme")  # drawn as they are: no noise from step to step


def read_curves(folder: Path) -> RunFolder:
    """A run with metrics or scores to draw. CheckpointError where its folder has no recipe.yaml, or neither of them."""
    run = read_run(folder)
    if not run.metrics and not run.step_scores:
        raise CheckpointError(f"{folder}: no curves to draw. {run.notes.get('metrics.jsonl', '')}".rstrip())
    return run


def by_column(scores: Sequence[StepScore]) -> dict[Column, list[StepScore]]:
    """The scores of each task, protocol and metric, in the order of the steps."""
    columns: dict[Column, list[StepScore]] = {}
    for score in scores:
        columns.setdefault(score.column, []).append(score)
    return columns


def runs_figure(runs: Sequence[RunFolder], names: Sequence[str] | None = None) -> Figure:
    """Curves against the step, a panel each, a colour for each run; raw values faint under a running mean.

    `names` are metrics of metrics.jsonl, or `scores` for a panel of each score by checkpoint (M2D-X, figure 5), in
    percent, with 95 % intervals. Raises CheckpointError for one that no run has, ValueError without runs.
    """
    if not runs:
        raise ValueError("a figure needs at least one run")
    panels = [
        Picture(title_of(panel), partial(_draw_runs, runs=runs, panel=panel))
        for panel in _panels(runs, curve_names(runs) if names is None else names)
    ]
    columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    figure = panel_figure(rows, inches=PANEL_INCHES)
    if len(runs) > 1:
        lines = [Line2D([], [], color=f"C{i % 10}") for i in range(len(runs))]
        titles = numbered([run.name for run in runs], " ({})")
        figure.legend(
            lines, titles, loc="outside upper left", ncols=min(len(runs), 2 * columns), frameon=False,
            fontsize=LABEL_SIZE, labelcolor=INK,
        )  # fmt: skip
    return figure


def _draw_runs(axes: Axes, *, runs: Sequence[RunFolder], panel: str | Column) -> None:
    for position, run in enumerate(runs):
        colour = f"C{position % 10}"
        if isinstance(panel, str):
            behind = (len(runs) - 1 - position) / len(runs) if panel in _SCHEDULES else 0.0
            # Of equal schedules those behind show at the edges.
            draw_metric(axes, run.metrics, panel, colour=colour, width=1.3 + 2.4 * behind)
        elif scores := [score for score in run.step_scores if score.column == panel]:
            draw_scores(axes, scores, colour=colour)


def _panels(runs: Sequence[RunFolder], names: Sequence[str]) -> list[str | Column]:
    """Each panel's metric, or the column of its scores."""
    measured = {name for run in runs for line in run.metrics for name in line} - {"step", "time", "epoch"}
    scores = list(dict.fromkeys(score.column for run in runs for score in run.step_scores))
    panels: list[str | Column] = []
    for name in names:
        if name == SCORES and not scores:
            raise CheckpointError(
                f"no run has scores by step: {STEP_SCORES_FILE} is missing in {', '.join(run.name for run in runs)}"
            )
        if name != SCORES and name not in measured:
            raise CheckpointError(
                f"a curve must be one of {', '.join(sorted(measured))} or {SCORES}, but is {name!r}"
            )
        panels += scores if name == SCORES else [name]
    return panels


def curve_names(runs: Sequence[RunFolder]) -> list[str]:
    """What is worth drawing of the runs: losses, learning rate, EMA decay, RankMe, and scores where there are any.

    A method's own loss is left out where it is the total in every run that has it.
    """
    lines = [line for run in runs for line in run.metrics]
    names = [
        name
        for name in loss_names(lines)
        if name.removeprefix("loss_") not in METHODS
        or any(line[name] != line.get("loss") for line in lines if name in line)
    ]
    names += [name for name in _RAW if any(name in line for line in lines)]
    return [*names, *([SCORES] if any(run.step_scores for run in runs) else [])]


def loss_names(metrics: Metrics) -> list[str]:
    """Names of the losses that occur: the total, M2D (or MSM-MAE), then the tasks."""
    found = dict.fromkeys(
        name for line in metrics for name in line if name == "loss" or name.startswith("loss_")
    )
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
    if name not in _RAW and len(values) >= SMOOTHED_FROM:
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
