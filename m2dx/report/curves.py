"""Curves of runs beside each other: losses, learning rate, EMA decay, RankMe, and scores by checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from m2dx.contract.errors import CheckpointError
from m2dx.report.figures import MOST_POINTS, Metrics, curve, loss_names, smooth, title_of
from m2dx.report.style import INK, LABEL_SIZE, TICKS, set_title
from m2dx.results.by_step import STEP_SCORES_FILE, StepScore
from m2dx.results.run_folder import read_run

SCORES = "scores"
"""The name among the curves that stands for every score by step."""
PANEL_INCHES = (3.6, 2.2)
FEW_POINTS = 30  # fewer are drawn with markers
SMOOTHED_FROM = 40  # points; a running mean of fewer says nothing
_OTHERS = ("lr", "ema_decay", "rankme")
_SCHEDULES = ("lr", "ema_decay")
_RAW = (*_SCHEDULES, "rankme")  # drawn as they are: no noise from step to step
_SHARED = {"loss_m2d": "loss", "loss_msm_mae": "loss"}  # the same as the total where there is no task


@dataclass(frozen=True)
class StepScores:
    """Scores of one run's checkpoints, for one task, protocol and metric."""

    what: str
    steps: NDArray[np.float64]
    means: NDArray[np.float64]
    ci95: NDArray[np.float64]  # half widths of the intervals; NaN where not known


@dataclass(frozen=True)
class RunCurves:
    """What a run measured while it trained."""

    name: str
    metrics: Metrics
    scores: tuple[StepScores, ...]


def read_curves(folder: Path) -> RunCurves:
    """The metrics and scores of a run's folder. CheckpointError where it has no recipe.yaml, or measured nothing."""
    run = read_run(folder)
    scores = _by_what(run.step_scores)
    if not run.metrics and not scores:
        raise CheckpointError(f"{folder}: no curves to draw. {run.notes.get('metrics.jsonl', '')}".rstrip())
    return RunCurves(run.name, [_own(line) for line in run.metrics], scores)


def _own(line: Mapping[str, float]) -> Mapping[str, float]:
    """A line of metrics without the decay that older runs of MSM-MAE wrote, though they have no target network."""
    return {name: value for name, value in line.items() if name != "ema_decay" or "loss_msm_mae" not in line}


def _by_what(scores: Sequence[StepScore]) -> tuple[StepScores, ...]:
    found: dict[str, list[tuple[float, float, float]]] = {}
    for item in scores:
        score = item.score
        half = math.nan if score.ci95 is None else score.ci95
        what = f"{score.task}, {score.protocol}: {score.metric}"
        found.setdefault(what, []).append((item.step, score.mean, half))
    return tuple(StepScores(what, *np.array(points, dtype=np.float64).T) for what, points in found.items())


def curve_names(runs: Sequence[RunCurves]) -> list[str]:
    """What is worth drawing of the runs: losses, learning rate, EMA decay, RankMe, and scores where there are any.

    A method's own loss is left out where it is the total in every run that has it.
    """
    losses = loss_names([line for run in runs for line in run.metrics])
    names = [name for name in losses if not _only_loss(name, runs)]
    names += [name for name in _OTHERS if any(name in line for run in runs for line in run.metrics)]
    return [*names, *([SCORES] if any(run.scores for run in runs) else [])]


def _only_loss(name: str, runs: Sequence[RunCurves]) -> bool:
    total = _SHARED.get(name)
    return total is not None and all(
        line.get(name) == line.get(total) for run in runs for line in run.metrics if name in line
    )


def runs_figure(runs: Sequence[RunCurves], names: Sequence[str] | None = None) -> Figure:
    """Curves against the step, a panel each, a colour for each run; raw values faint under a running mean.

    `names` are metrics of metrics.jsonl, or `scores` for a panel of each score by checkpoint (M2D-X, figure 5), with
    95 % intervals. Raises CheckpointError for one that no run has, ValueError without runs.
    """
    if not runs:
        raise ValueError("a figure needs at least one run")
    panels = _panels(runs, curve_names(runs) if names is None else names)
    columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.3), layout="constrained")
    titles = run_titles(runs)
    for number, (name, is_score) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        for position, run in enumerate(runs):
            draw = _draw_scores if is_score else _draw_metric
            behind = (len(runs) - 1 - position) / len(runs) if name in _SCHEDULES else 0.0
            width = 1.3 + 2.4 * behind  # equal ones show at the edges
            draw(axes, run, name, colour=_colour(position), width=width)
        _dress(axes, name if is_score else title_of(name))
    if len(runs) > 1:
        lines = [Line2D([], [], color=_colour(i)) for i in range(len(runs))]
        figure.legend(
            lines, titles, loc="outside upper left", ncols=min(len(runs), 2 * columns), frameon=False,
            fontsize=LABEL_SIZE, labelcolor=INK,
        )  # fmt: skip
    return figure


def run_titles(runs: Sequence[RunCurves]) -> list[str]:
    """The runs' names, those of one name numbered."""
    names = [run.name for run in runs]
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def _panels(runs: Sequence[RunCurves], names: Sequence[str]) -> list[tuple[str, bool]]:
    """Each panel's metric or score, and which of the two it is."""
    measured = {name for run in runs for line in run.metrics for name in line} - {"step", "time", "epoch"}
    scores = dict.fromkeys(score.what for run in runs for score in run.scores)
    panels: list[tuple[str, bool]] = []
    for name in names:
        if name == SCORES and not scores:
            raise CheckpointError(
                f"no run has scores by step: {STEP_SCORES_FILE} is missing in {', '.join(run.name for run in runs)}"
            )
        if name != SCORES and name not in measured:
            raise CheckpointError(
                f"a curve must be one of {', '.join(sorted(measured))} or {SCORES}, but is {name!r}"
            )
        panels += [(what, True) for what in scores] if name == SCORES else [(name, False)]
    return panels


def _colour(position: int) -> str:
    return f"C{position % 10}"


def _draw_metric(axes: Axes, run: RunCurves, name: str, *, colour: str, width: float) -> None:
    steps, values = curve(run.metrics, name)
    thin = slice(None, None, max(-(-len(steps) // MOST_POINTS), 1))
    if name not in _RAW and len(values) >= SMOOTHED_FROM:
        axes.plot(steps[thin], values[thin], color=colour, alpha=0.2, linewidth=0.6)
        values = smooth(values)
    axes.plot(
        steps[thin], values[thin], color=colour, linewidth=width,
        marker="o" if len(steps) <= FEW_POINTS else "", markersize=2.5,
    )  # fmt: skip


def _draw_scores(axes: Axes, run: RunCurves, what: str, *, colour: str, width: float) -> None:
    for score in run.scores:
        if score.what == what:
            axes.errorbar(
                score.steps, score.means, yerr=np.nan_to_num(score.ci95), color=colour,
                linewidth=width, marker="o", markersize=3, elinewidth=0.8, capsize=2,
            )  # fmt: skip


def _dress(axes: Axes, title: str) -> None:
    set_title(axes, title)
    axes.set_xlabel("step", fontsize=LABEL_SIZE, color=INK)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_color(INK)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.grid(axis="y", color=INK, alpha=0.13, linewidth=0.6)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=TICKS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
