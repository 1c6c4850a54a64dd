"""What the scores of an encoder and its baselines mean, in words; the terminal and the page share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m2dx.contract.components import Score
from m2dx.contract.wording import counted
from m2dx.results.scores import PRETRAINED, START, Column

WHAT_NOW = "https://m2dx.github.io/m2dx/start/#my-encoder-is-below-log-mel-what-now"
"""The page that tells."""
MOST_NAMED = 3
"""Columns that a verdict names, at most."""
_TITLES = {
    PRETRAINED: "Pre-trained",
    START: "Before this training",
    "random_weights": "Random weights",
    "mean_logmel": "Mean log-mel",
}


@dataclass(frozen=True)
class Comparison:
    """The pre-trained encoder beside the best of its baselines, in one column."""

    own: Score
    rival: Score
    is_apart: bool | None
    """Whether the intervals leave a gap; None: a score has a single value and so no interval."""

    @property
    def gain(self) -> float:
        """Percentage points that the encoder is ahead; below 0 it is behind."""
        return 100 * (self.own.mean - self.rival.mean)

    @property
    def text(self) -> str:
        """Such as "drums knn accuracy (2.1 points below Mean log-mel)"."""
        gap = (
            f"{abs(self.gain):.1f} points {'above' if self.gain > 0 else 'below'}"
            if self.gain
            else "level with"
        )
        own = self.own
        return f"{own.task} {own.protocol} {own.metric} ({gap} {encoder_title(self.rival.encoder)})"


def compare(scores: Sequence[Score]) -> list[Comparison]:
    """A comparison for each column that has the pre-trained encoder and a baseline."""
    by_encoder, columns = scores_by_encoder(scores)
    own, found = by_encoder.pop(PRETRAINED, {}), []
    for column in columns:
        rivals = [row[column] for row in by_encoder.values() if column in row]
        if column in own and rivals:
            best = max(rivals, key=lambda rival: rival.mean)
            others = rivals if own[column].mean > best.mean else [best]
            found.append(Comparison(own[column], best, _are_apart(own[column], others)))
    return found


def verdict(scores: Sequence[Score]) -> str:
    """In how many scores the encoder is ahead of all baselines, by how much, and beyond chance or not.

    Empty without scores.
    """
    compared = compare(scores)
    if not compared:
        return "No baseline was measured beside it, so these scores cannot be judged." if scores else ""
    ordered = sorted(compared, key=lambda of: of.gain)
    behind = [of for of in ordered if of.gain <= 0]
    ahead = ordered[len(behind) :]
    text = f"The pre-trained encoder is ahead of every baseline in {len(ahead)} of {counted(len(compared), 'score')}"
    if ahead:
        least, most = (f"{of.gain:.1f}" for of in (ahead[0], ahead[-1]))
        text += f", by {least if least == most else f'{least} to {most}'} points over the best of them"
        apart = [of.is_apart for of in ahead]
        if None in apart:
            text += "; some have a single value and so no interval, which leaves chance open"
        else:
            text += f", in {sum(map(bool, apart))} of them with intervals that do not overlap"
    if behind:
        more = f" and {len(behind) - MOST_NAMED} more" if len(behind) > MOST_NAMED else ""
        text += f". Not ahead in {', '.join(of.text for of in behind[:MOST_NAMED])}{more}"
    return f"{text}."


def advice(scores: Sequence[Score]) -> str:
    """What to do next where the encoder is not ahead of every baseline beyond chance; empty where it is."""
    compared = compare(scores)
    if any(of.gain <= 0 for of in compared):
        return f"What to do where it is not ahead: {WHAT_NOW}"
    if any(of.is_apart is not True for of in compared):
        return "Whether it is chance, more seeds tell: evaluation.seeds=[0,1,2,3,4]"
    return ""


def _are_apart(own: Score, rivals: Sequence[Score]) -> bool | None:
    """Whether the interval of a score leaves a gap to that of each rival."""
    if own.ci95 is None or any(rival.ci95 is None for rival in rivals):
        return None
    return all(abs(own.mean - rival.mean) > own.ci95 + (rival.ci95 or 0.0) for rival in rivals)


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
