"""Scores arranged for the page: encoders by task and protocol, and the encoder by step."""

from __future__ import annotations

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


def verdict(scores: Sequence[Score]) -> str:
    """In words, where the pre-trained encoder is ahead of all baselines; empty without scores."""
    by_encoder, columns = _by_encoder(scores)
    own = by_encoder.pop(PRETRAINED, {})
    rivals = {
        c: found for c in columns if c in own and (found := [r[c] for r in by_encoder.values() if c in r])
    }
    if not columns:
        return ""
    if not rivals:
        return "No baseline was measured beside it, so these scores cannot be judged."
    ahead = [c for c in rivals if all(own[c].mean > rival.mean for rival in rivals[c])]
    text = f"The pre-trained encoder is ahead of every baseline in {len(ahead)} of {len(rivals)} columns"
    if not ahead:
        return f"{text}."
    if all(score.ci95 is not None for c in rivals for score in (own[c], *rivals[c])):
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
    """The scores of each encoder by column, and the columns, those of a task together."""
    rows: dict[str, dict[Column, Score]] = {}
    tasks = list(dict.fromkeys(score.task for score in scores))
    for score in scores:
        rows.setdefault(score.encoder, {})[score.task, score.protocol, score.metric] = score
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    return rows, sorted(columns, key=lambda column: tasks.index(column[0]))
