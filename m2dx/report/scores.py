"""Scores arranged for the page: encoders by task and protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from m2dx.contract.components import Score

PRETRAINED = "pretrained"
_TITLES = {PRETRAINED: "Pre-trained", "random_weights": "Random weights", "mean_logmel": "Mean log-mel"}

Column = tuple[str, str, str]  # task, protocol, metric


@dataclass(frozen=True)
class Cell:
    """One score as text."""

    text: str
    is_best: bool


@dataclass(frozen=True)
class ScoreRow:
    """An encoder and its score in each column."""

    encoder: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ScoreTable:
    """Scores in percent, the best of each column marked."""

    tasks: tuple[tuple[str, int], ...]  # name, columns
    columns: tuple[Column, ...]
    rows: tuple[ScoreRow, ...]
    details: tuple[tuple[str, ...], ...]  # encoder, task, protocol, values, details; one line per score
    has_intervals: bool


def arrange_scores(scores: Sequence[Score]) -> ScoreTable:
    """The table of the scores; a task's columns stand together, and encoders keep their order."""
    by_encoder, columns = _by_encoder(scores)
    tasks = {task: sum(column[0] == task for column in columns) for task, _, _ in columns}
    best = {c: max(row[c].mean for row in by_encoder.values() if c in row) for c in columns}
    rows = [
        ScoreRow(encoder_title(encoder), tuple(_cell(row.get(c), best[c]) for c in columns))
        for encoder, row in by_encoder.items()
    ]
    return ScoreTable(
        tasks=tuple(tasks.items()),
        columns=tuple(columns),
        rows=tuple(rows),
        details=tuple(_details(entry) for entry in scores),
        has_intervals=any(entry.ci95 is not None for entry in scores),
    )


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
        apart = [c for c in ahead if all(_low(own[c]) > _high(rival) for rival in rivals[c])]
        return f"{text}, in {len(apart)} of them with intervals that do not overlap."
    return f"{text}; some have a single value and so no interval, which leaves chance open."


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


def _low(score: Score) -> float:
    return score.mean - (score.ci95 or 0.0)


def _high(score: Score) -> float:
    return score.mean + (score.ci95 or 0.0)


def _cell(score: Score | None, best: float) -> Cell:
    if score is None:
        return Cell("not measured", is_best=False)
    interval = "" if score.ci95 is None else f" ± {100 * score.ci95:.1f}"
    return Cell(f"{100 * score.mean:.1f}{interval}", is_best=score.mean == best)


def _details(score: Score) -> tuple[str, ...]:
    values = ", ".join(f"{100 * value:.1f}" for value in score.values)
    details = json.dumps(dict(score.details), default=str, ensure_ascii=False) if score.details else ""
    return (encoder_title(score.encoder), score.task, f"{score.protocol} ({score.metric})", values, details)
