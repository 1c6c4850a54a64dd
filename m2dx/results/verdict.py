"""What the scores of an encoder and its baselines mean, in words; the terminal and the page share it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from m2dx.contract.components import Score
from m2dx.contract.wording import counted, some_of
from m2dx.evaluation.bootstrap import difference
from m2dx.results.scores import PRETRAINED, START, Column

WHAT_NOW = "https://m2dx.github.io/m2dx/start/#my-encoder-is-below-log-mel-what-now"
"""The page that tells."""
MOST_NAMED = 3  # columns that a verdict names, at most
_TITLES = {
    PRETRAINED: "Pre-trained",
    START: "Before this training",
    "random_weights": "Random weights",
    "mean_logmel": "Mean log-mel",
}
_IN_TEXT = {name: title.lower() for name, title in _TITLES.items()} | {START: "the start"}


@dataclass(frozen=True)
class Comparison:
    """The pre-trained encoder beside the best of its baselines, in one column."""

    own: Score
    rival: Score
    interval: tuple[float, float] | None
    """Of the gain, 95 %; None: a score has a single value and no predictions."""
    is_apart: bool | None
    """Whether the gain over each baseline is beyond chance, or the loss to the best one; None: not known of one."""

    @property
    def gain(self) -> float:
        """Percentage points that the encoder is ahead; below 0 it is behind."""
        return 100 * (self.own.mean - self.rival.mean)

    @property
    def text(self) -> str:
        """Such as "drums knn accuracy: -2.1 points (95 %: -4.0 to -0.2) on mean log-mel"."""
        own, rival = self.own, _IN_TEXT.get(self.rival.encoder, self.rival.encoder)
        ends = "" if self.interval is None else " (95 %: {:.1f} to {:.1f})".format(*self.interval)
        return f"{own.task} {own.protocol} {own.metric}: {self.gain:+.1f} points{ends} on {rival}"


def compare(scores: Sequence[Score]) -> list[Comparison]:
    """A comparison for each column that has the pre-trained encoder and a baseline."""
    by_encoder, columns = scores_by_encoder(scores)
    own, found = by_encoder.pop(PRETRAINED, {}), []
    for column in columns:
        rivals = [row[column] for row in by_encoder.values() if column in row]
        if column in own and rivals:
            mine, best = own[column], max(rivals, key=lambda rival: rival.mean)
            others = rivals if mine.mean > best.mean else [best]
            intervals = [_interval(mine, other) for other in others]
            known = [ends for ends in intervals if ends is not None]
            apart = None if len(known) < len(others) else not any(low <= 0 <= high for low, high in known)
            found.append(Comparison(mine, best, _interval(mine, best), apart))
    return found


def with_differences(scores: Sequence[Score]) -> list[Score]:
    """The scores; `above` in the details of the encoder's own says how far they are above each baseline's.

    Only where both have predictions of one classifier for each clip.
    """
    rivals = scores_by_encoder(scores)[0]
    rivals.pop(PRETRAINED, None)
    found = []
    for score in scores:
        column = score.task, score.protocol, score.metric
        if score.encoder == PRETRAINED:
            above = {name: difference(score, row[column]) for name, row in rivals.items() if column in row}
            known = {name: entry for name, entry in above.items() if entry is not None}
            score = replace(score, details={**score.details, "above": known}) if known else score
        found.append(score)
    return found


def _interval(own: Score, rival: Score) -> tuple[float, float] | None:
    """Of the difference in points: by the bootstrap on the same clips, else from both intervals as if independent."""
    above: Any = own.details.get("above", {})
    if entry := above.get(rival.encoder):
        return 100 * entry["low"], 100 * entry["high"]
    if own.ci95 is None or rival.ci95 is None:
        return None
    gain, half = own.mean - rival.mean, math.hypot(own.ci95, rival.ci95)
    return 100 * (gain - half), 100 * (gain + half)


def verdict(scores: Sequence[Score]) -> str:
    """In how many scores the encoder is ahead of all baselines, by how much, and beyond chance or not.

    Empty without scores.
    """
    compared = compare(scores)
    if not compared and scores:
        is_alone = all(score.encoder == PRETRAINED for score in scores)
        what = "was measured beside it" if is_alone else "has the same score"
        return f"No baseline {what}, so these scores cannot be judged."
    if not compared:
        return ""
    ordered = sorted(compared, key=lambda comparison: comparison.gain)
    behind = [comparison for comparison in ordered if comparison.gain <= 0]
    ahead = ordered[len(behind) :][::-1]
    text = f"The pre-trained encoder is ahead of every baseline in {len(ahead)} of {counted(len(compared), 'score')}"
    if ahead:
        apart = [comparison.is_apart for comparison in ahead]
        text += f", beyond chance in {sum(map(bool, apart))} of them"
        text += " (not known where there is no interval)" if None in apart else ""
        text += f"; the best baselines: {_listed(ahead)}"
    if behind:
        text += f". Not ahead in {_listed(behind)}"
    taught = {score.task: score.details["taught"] for score in scores if "taught" in score.details}
    return ". ".join([text, *(f"But of {task}, {warning}" for task, warning in taught.items())]) + "."


def _listed(found: Sequence[Comparison]) -> str:
    return some_of((comparison.text for comparison in found), most=MOST_NAMED)


def advice(scores: Sequence[Score]) -> str:
    """What to do next where the encoder is not ahead of every baseline beyond chance; empty where it is."""
    compared = compare(scores)
    if any(comparison.gain <= 0 for comparison in compared):
        return f"What to do where it is not ahead: {WHAT_NOW}"
    if any(comparison.is_apart is not True for comparison in compared):
        return "Whether it is chance, more test clips tell, or further runs: seed=1, seed=2"
    return ""


def encoder_title(encoder: str) -> str:
    """An encoder's name for people."""
    return _TITLES.get(encoder, encoder)


def scores_by_encoder(scores: Sequence[Score]) -> tuple[dict[str, dict[Column, Score]], list[Column]]:
    """The scores of each encoder by column, and the columns, those of a task together."""
    rows: dict[str, dict[Column, Score]] = {}
    tasks = list(dict.fromkeys(score.task for score in scores))
    for score in scores:
        rows.setdefault(score.encoder, {})[score.task, score.protocol, score.metric] = score
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    return rows, sorted(columns, key=lambda column: tasks.index(column[0]))
