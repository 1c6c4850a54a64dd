"""Scores arranged for the page: encoders by task and protocol, and the encoder by step."""

from __future__ import annotations

from collections.abc import Sequence

from m2dx.contract.components import Score
from m2dx.report.curves import by_column
from m2dx.results.scores import StepScore
from m2dx.results.table import Cell, Group, ResultTable, Row, cells_of
from m2dx.results.verdict import encoder_title, scores_by_encoder


def arrange_scores(scores: Sequence[Score]) -> ResultTable:
    """A row per encoder, the best of each column marked; the columns of a task stand together."""
    by_encoder, columns = scores_by_encoder(scores)
    tasks = {task: sum(column[0] == task for column in columns) for task, _, _ in columns}
    by_column = [cells_of([row.get(column) for row in by_encoder.values()]) for column in columns]
    rows = [
        Row(encoder_title(encoder), (), cells)
        for encoder, cells in zip(by_encoder, zip(*by_column, strict=True), strict=True)
    ]
    notes = ["In percent; the best of each column is bold."]
    if any(score.ci95 is not None for score in scores):
        notes.append("After ±: half of the 95 % confidence interval over seeds or folds.")
    return ResultTable(
        title="",
        heading="Encoder",
        info=(),
        columns=tuple(f"{protocol}\n{metric}" for _, protocol, metric in columns),
        groups=(Group("", tuple(rows)),),
        notes=tuple(notes),
        spans=tuple(tasks.items()),
    )


def step_table(scores: Sequence[StepScore]) -> ResultTable:
    """A row for each step, a column for each task, protocol and metric."""
    columns = tuple(by_column(scores))
    found = {(item.step, item.column): Cell.percent(item.score.mean, item.score.ci95) for item in scores}
    rows = [
        Row(f"{step:,}", (), tuple(found.get((step, column)) for column in columns))
        for step in sorted({item.step for item in scores})
    ]
    return ResultTable("", "Step", (), tuple(map("\n".join, columns)), (Group("", tuple(rows)),))


def percent(score: Score) -> str:
    """A score in percent, with its interval where it has one."""
    return Cell.percent(score.mean, score.ci95).text
