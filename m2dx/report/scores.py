"""Scores arranged for the page: encoders by task and protocol, and the encoder by step."""

from __future__ import annotations

import json
from collections.abc import Sequence

from m2dx.contract.components import Score
from m2dx.report.curves import by_column
from m2dx.results.scores import PRETRAINED, Column, StepScore
from m2dx.results.table import Cell, Group, ResultTable, Row, cells_of

_TITLES = {PRETRAINED: "Pre-trained", "random_weights": "Random weights", "mean_logmel": "Mean log-mel"}


def arrange_scores(scores: Sequence[Score]) -> ResultTable:
    """A row per encoder, the best of each column marked; the columns of a task stand together."""
    by_encoder, columns = _by_encoder(scores)
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


def score_details(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Encoder, task, protocol, values and details of each score."""
    return [_details(score) for score in scores]


def verdict(scores: Sequence[Score]) -> str:
    """In words, where the pre-trained encoder is ahead of all baselines; empty without scores."""
    by_encoder, columns = _by_encoder(scores)
    own = by_encoder.get(PRETRAINED, {})
    others = [row for encoder, row in by_encoder.items() if encoder != PRETRAINED]
    compared = [c for c in columns if c in own and any(c in row for row in others)]
    if not columns:
        return ""
    if not compared:
        return "No baseline was measured beside it, so these scores cannot be judged."
    rivals = {c: [row[c] for row in others if c in row] for c in compared}
    ahead = [c for c in compared if all(own[c].mean > rival.mean for rival in rivals[c])]
    text = f"The pre-trained encoder is ahead of every baseline in {len(ahead)} of {len(compared)} columns"
    if not ahead:
        return f"{text}."
    if all(score.ci95 is not None for c in compared for score in (own[c], *rivals[c])):
        apart = [c for c in ahead if all(_is_apart(own[c], rival) for rival in rivals[c])]
        return f"{text}, in {len(apart)} of them with intervals that do not overlap."
    return f"{text}; some have a single value and so no interval, which leaves chance open."


def _is_apart(score: Score, rival: Score) -> bool:
    """Whether the interval of a score lies above that of a rival."""
    return score.mean - (score.ci95 or 0.0) > rival.mean + (rival.ci95 or 0.0)


def percent(score: Score) -> str:
    """A score in percent, with its interval where it has one."""
    return Cell.percent(score.mean, score.ci95).text


def encoder_title(encoder: str) -> str:
    """An encoder's name for people."""
    return _TITLES.get(encoder, encoder)


def _by_encoder(scores: Sequence[Score]) -> tuple[dict[str, dict[Column, Score]], list[Column]]:
    rows: dict[str, dict[Column, Score]] = {}
    by_task: dict[str, dict[Column, None]] = {}
    for score in scores:
        column = (score.task, score.protocol, score.metric)
        by_task.setdefault(score.task, {})[column] = None
        rows.setdefault(score.encoder, {})[column] = score
    return rows, [column for columns in by_task.values() for column in columns]


def _details(score: Score) -> tuple[str, ...]:
    values = ", ".join(f"{100 * value:.1f}" for value in score.values)
    details = json.dumps(dict(score.details), default=str, ensure_ascii=False) if score.details else ""
    return (encoder_title(score.encoder), score.task, f"{score.protocol} ({score.metric})", values, details)
