"""Scores of a run's encoder after some of its steps: read, drawn and tabulated."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from m2dx.report.figures import ACCENT, PANEL_INCHES, TICKS, dress, thin_frame

STEP_SCORES = "scores_by_step.jsonl"

Column = tuple[str, str, str]
"""Task, protocol, metric."""


@dataclass(frozen=True)
class StepScore:
    """One score after a step."""

    step: int
    column: Column
    mean: float  # in [0, 1]
    ci95: float | None

    @property
    def text(self) -> str:
        """In percent, with the interval."""
        return f"{100 * self.mean:.1f}" + ("" if self.ci95 is None else f" ± {100 * self.ci95:.1f}")


@dataclass(frozen=True)
class StepTable:
    """Scores by step, a column for each task, protocol and metric."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]  # step, a text for each column


def read_step_scores(path: Path, notes: dict[str, str]) -> tuple[StepScore, ...]:
    """The scores of a run, by step; none without the file. Lines that cannot be read are counted in `notes`."""
    if not path.exists():
        return ()
    scores: dict[tuple[int, Column], StepScore] = {}
    unreadable = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            score = _score(json.loads(line))
        except (ValueError, KeyError, TypeError):
            unreadable += 1
        else:
            scores[score.step, score.column] = score  # a later line of the same replaces it
    if unreadable:
        notes[path.name] = f"Lines of {path.name} that cannot be read, and are not shown: {unreadable}."
    return tuple(sorted(scores.values(), key=lambda score: score.step))


def _score(line: Mapping[str, object]) -> StepScore:
    mean, ci95, step = line["mean"], line.get("ci95"), line["step"]
    if not isinstance(mean, int | float) or not math.isfinite(mean) or not isinstance(step, int):
        raise ValueError("not a score of a step")
    known = isinstance(ci95, int | float) and math.isfinite(ci95)
    column = (str(line["task"]), str(line["protocol"]), str(line["metric"]))
    return StepScore(step, column, float(mean), float(ci95) if known else None)  # type: ignore[arg-type]


def by_column(scores: Sequence[StepScore]) -> dict[Column, list[StepScore]]:
    """The scores of each column, in the order of the steps."""
    columns: dict[Column, list[StepScore]] = {}
    for score in scores:
        columns.setdefault(score.column, []).append(score)
    return columns


def step_table(scores: Sequence[StepScore]) -> StepTable:
    """A row for each step."""
    columns = tuple(by_column(scores))
    texts = {(score.step, score.column): score.text for score in scores}
    steps = sorted({score.step for score in scores})
    rows = tuple(
        (step, tuple(texts.get((step, column), "not measured") for column in columns)) for step in steps
    )
    return StepTable(columns, rows)


def step_figure(column: Column, scores: Sequence[StepScore]) -> Figure:
    """One column's scores, in percent, against the step, with the 95 % interval where it is known (M2D-X, figure 5)."""
    figure = Figure(figsize=PANEL_INCHES, layout="constrained")
    axes = figure.add_subplot()
    steps = [score.step for score in scores]
    axes.plot(
        steps, [100 * score.mean for score in scores], color=ACCENT, linewidth=1.5, marker="o", markersize=3
    )
    low = [100 * (score.mean - (score.ci95 or 0.0)) for score in scores]
    high = [100 * (score.mean + (score.ci95 or 0.0)) for score in scores]
    axes.fill_between(steps, low, high, color=ACCENT, alpha=0.2, linewidth=0)
    dress(axes, f"{column[0]}, {column[1]}: {column[2]} (%)", "step")
    thin_frame(axes, steps)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICKS))
    return figure
