"""Scores of a run's encoder after some of its steps: read, drawn and tabulated."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from m2dx.report.figures import ACCENT, PANEL_INCHES, TICKS, dress, thin_frame
from m2dx.results.by_step import Column, StepScore
from m2dx.results.table import Cell, Group, ResultTable, Row


def by_column(scores: Sequence[StepScore]) -> dict[Column, list[StepScore]]:
    """The scores of each column, in the order of the steps."""
    columns: dict[Column, list[StepScore]] = {}
    for score in scores:
        columns.setdefault(score.column, []).append(score)
    return columns


def step_table(scores: Sequence[StepScore]) -> ResultTable:
    """A row for each step, a column for each task, protocol and metric."""
    columns = tuple(by_column(scores))
    found = {(of.step, of.column): Cell.percent(of.score.mean, of.score.ci95) for of in scores}
    rows = [
        Row(f"{step:,}", (), tuple(found.get((step, column)) for column in columns))
        for step in sorted({score.step for score in scores})
    ]
    return ResultTable("", "Step", (), tuple(map("\n".join, columns)), (Group("", tuple(rows)),))


def step_figure(column: Column, scores: Sequence[StepScore]) -> Figure:
    """One column's scores, in percent, against the step, with the 95 % interval where it is known (M2D-X, figure 5)."""
    figure = Figure(figsize=PANEL_INCHES, layout="constrained")
    axes = figure.add_subplot()
    steps = [score.step for score in scores]
    axes.plot(
        steps,
        [100 * item.score.mean for item in scores],
        color=ACCENT,
        linewidth=1.5,
        marker="o",
        markersize=3,
    )
    low = [100 * (item.score.mean - (item.score.ci95 or 0.0)) for item in scores]
    high = [100 * (item.score.mean + (item.score.ci95 or 0.0)) for item in scores]
    axes.fill_between(steps, low, high, color=ACCENT, alpha=0.2, linewidth=0)
    dress(axes, f"{column[0]}, {column[1]}: {column[2]} (%)", "step")
    thin_frame(axes, steps)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICKS))
    return figure
