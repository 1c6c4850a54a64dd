"""Curves of runs beside each other: losses, learning rate, EMA decay, RankMe, and scores by checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from m2dx.contract.errors import CheckpointError
from m2dx.report.curves import METHODS, RAW, SCHEDULES, draw_metric, draw_scores, loss_names, title_of
from m2dx.report.style import INK, LABEL_SIZE, Picture
from m2dx.results.run_folder import RunFolder, read_run
from m2dx.results.scores import STEP_SCORES_FILE, Column
from m2dx_draw.panels import numbered, panel_figure

SCORES = "scores"
"""The name among the curves that stands for every score by step."""
PANEL_INCHES = (3.6, 2.3)


def read_curves(folder: Path) -> RunFolder:
    """A run with metrics or scores to draw. CheckpointError where its folder has no recipe.yaml, or neither of them."""
    run = read_run(folder)
    if not run.metrics and not run.step_scores:
        raise CheckpointError(f"{folder}: no curves to draw. {run.notes.get('metrics.jsonl', '')}".rstrip())
    return run


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
            behind = (len(runs) - 1 - position) / len(runs) if panel in SCHEDULES else 0.0
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
    names += [name for name in RAW if any(name in line for line in lines)]
    return [*names, *([SCORES] if any(run.step_scores for run in runs) else [])]
