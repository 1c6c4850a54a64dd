"""What encoders are worth: scores on the validation part, one test, and the verdict in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from m2dx_probes.subsets import subset_fold

import m2dx
from m2dx.contract.components import ClipEncoder
from m2dx.data.csv_list import CsvDataset
from m2dx.data.division import deal
from m2dx.evaluation.bootstrap import difference
from m2dx.evaluation.features import FeatureCache
from m2dx.evaluation.logistic import Logistic
from m2dx.evaluation.splits import SPLITS
from m2dx.evaluation.tasks import mean_seconds

VALID_SHARE, FEWEST_VALID = 0.25, 0.2
"""Of training and validation part together: the validation part that is dealt, and the smallest one that is kept."""
TEST_FOLDS = 0.4
LONGEST_SECONDS = 10.0
"""Of a clip that is encoded."""
MOST_CLIPS = 6_000
"""Clips of a part that are scored."""
EASIER = 0.15
"""How far a validation part may be above the test part, before it is told."""
FEWEST_CLIPS = 40
"""Labelled clips that a verdict needs."""
CURVE, DRAWS = (25, 50, 100, 200, 400, 800, 1600), 3
"""Numbers of labels that the gain is measured with, and draws of each."""


class Listed(m2dx.Dataset):
    """Clips of one part of the division, or of two."""

    name = "specialise"

    def __init__(self, clips: Sequence[m2dx.Clip]) -> None:
        self._clips = list(clips)

    def clips(self, split: str | None = None) -> list[m2dx.Clip]:
        return [clip for clip in self._clips if split in (None, clip.split)]


@dataclass(frozen=True)
class Parts:
    """The clips of a division."""

    train: tuple[m2dx.Clip, ...]  # labelled
    valid: tuple[m2dx.Clip, ...]  # labelled; candidates are chosen on it, and never learn its labels
    test: tuple[m2dx.Clip, ...]  # labelled; seen once
    others: tuple[m2dx.Clip, ...] = ()  # without labels; they are trained on

    @classmethod
    def read(cls, division: Path, pool: Path) -> Parts:
        """From the list of a division, and that of what may be trained on."""
        others = [clip for clip in CsvDataset(path=pool).clips() if not clip.labels] if pool.exists() else []
        return cls.of([*(CsvDataset(path=division).clips() if division.exists() else []), *others])

    @classmethod
    def of(cls, clips: Sequence[m2dx.Clip]) -> Parts:
        """The same, of clips. A small validation part is dealt anew; of folds, the last two of five are the test."""
        labelled, others = ([clip for clip in clips if bool(clip.labels) is which] for which in (True, False))
        folds = sorted({str(clip.split) for clip in labelled} - set(SPLITS))
        tested = {"test", *folds[len(folds) - round(TEST_FOLDS * len(folds)) :]}
        test = [clip for clip in labelled if clip.split in tested]
        rest = [clip for clip in labelled if clip.split not in tested]
        train, valid = (
            [clip for clip in rest if (clip.split == "valid") is which] for which in (False, True)
        )
        groups = len({clip.group or clip.path for clip in rest})
        if len(valid) < FEWEST_VALID * len(rest) and groups > 1:
            part = deal(rest, [1 - VALID_SHARE, VALID_SHARE]).tolist()
            train, valid = (
                [clip for clip, of in zip(rest, part, strict=True) if of == which] for which in (0, 1)
            )
        return cls(tuple(train), tuple(valid), tuple(test), tuple(others))

    @property
    def labelled(self) -> tuple[m2dx.Clip, ...]:
        """Of all parts."""
        return self.train + self.valid + self.test

    @property
    def problem(self) -> str | None:
        """Why there can be no verdict, in words; None: there can be one."""
        count = len(self.labelled)
        if not count:
            return "there are no labels"
        classes = {name for clip in self.labelled for name in clip.labels}
        if len(classes) < 2:
            return f"all labels are {min(classes)!r}, and one class is nothing to tell apart"
        if any(len(clip.labels) > 1 for clip in self.labelled):
            return "some clips have several labels, and a verdict is for one label a clip"
        if count < FEWEST_CLIPS:
            return f"{count} labelled clips are too few to tell encoders apart; {FEWEST_CLIPS} is the least"
        lacking = [name for name in ("train", "valid", "test") if len({*_labels(getattr(self, name))}) < 2]
        if lacking:
            return f"the {' and '.join(lacking)} part has fewer than two classes, as groups must stay whole"
        return None

    def task(self, name: Literal["choice", "test"], folder: Path, *, seed: int = 0) -> m2dx.ClipTask:
        """The task that candidates are chosen by (fitted to the training part, scored on the validation part), or the
        test (fitted to both). Features are kept in a folder."""
        fitted = self.train if name == "choice" else self.train + self.valid
        scored = self.valid if name == "choice" else self.test
        clips = [replace(clip, split="train") for clip in _some(fitted, seed)]
        clips += [replace(clip, split="test") for clip in _some(scored, seed)]
        return m2dx.ClipTask.from_dataset(
            name,
            Listed(clips),
            unit_seconds=unit_seconds(self.labelled),
            short_clips="pad",
            shared_groups="warn",
            cache=FeatureCache(folder),
        )


def _labels(clips: Sequence[m2dx.Clip]) -> list[str]:
    return [name for clip in clips for name in clip.labels]


def _some(clips: Sequence[m2dx.Clip], seed: int) -> list[m2dx.Clip]:
    """All of them, or `MOST_CLIPS` at random."""
    if len(clips) <= MOST_CLIPS:
        return list(clips)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(clips))[:MOST_CLIPS])
    return [clips[row] for row in chosen.tolist()]


def unit_seconds(clips: Sequence[m2dx.Clip]) -> float:
    """The length that clips are brought to."""
    known = [clip for clip in clips if clip.duration is not None]
    return (
        max(min(round(mean_seconds("clips", known), 3), LONGEST_SECONDS), 0.1) if known else LONGEST_SECONDS
    )


def score(encoder: ClipEncoder, task: m2dx.ClipTask, name: str) -> m2dx.Score:
    """By logistic regression, with the predictions."""
    return replace(Logistic().evaluate(encoder, task, seeds=(0,))[0], encoder=name)


def loss_of(score: m2dx.Score) -> float:
    """Mean of the negative logarithm of the probability of the truth; of equal accuracies, the lower one is better."""
    names = sorted(
        {item.label for item in score.predictions} | set(_labels([of.clip for of in score.predictions]))
    )
    losses = []
    for item in score.predictions:
        right = item.label in item.clip.labels
        rest = (1 - item.probability) / max(len(names) - 1, 1)
        losses.append(-math.log(max(item.probability if right else rest, 1e-6)))
    return round(float(np.mean(losses)), 6)


@dataclass(frozen=True)
class Gain:
    """A difference of two accuracies on the same clips in points, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, own: m2dx.Score, rival: m2dx.Score) -> Gain:
        """How far the first is above the second."""
        found = difference(own, rival)
        assert found is not None  # both are of one classifier, on the same clips
        return cls(*(100 * found[name] for name in ("value", "low", "high")))

    @property
    def text(self) -> str:
        return f"{self.value:+.1f} points (95 %: {self.low:.1f} to {self.high:.1f})"

    @property
    def interval(self) -> str:
        return f"{self.low:+.1f} to {self.high:+.1f}"

    @property
    def is_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


Kind = Literal["specialise", "use", "plain", "none"]
PLAIN, RANDOM = "log-mel statistics", "random network"


@dataclass(frozen=True)
class Verdict:
    """What to do, and why."""

    kind: Kind
    sentence: str


def decide(
    best: str,
    gain: Gain | None,
    above_plain: Gain | None,
    *,
    labels: int | None = None,
) -> Verdict:
    """The verdict of the test.

    `best`: what is best of all that needs no training, by the validation part. `gain`: how far the trained winner is
    above it; None: nothing was trained. `above_plain`: how far `best` is above log-mel statistics; None: it is these.
    `labels`: from how many on the gain is beyond chance.
    """
    if gain is not None and gain.low > 0:
        labelled = "" if labels is None else f", from {labels} labels on"
        return Verdict(
            "specialise", f"Specialise: {gain.text} over the best of what you have ({best}){labelled}."
        )
    if gain is None:
        trained = "nothing could be trained in the time"
    else:
        trained = f"training {'loses' if gain.is_apart else 'is level'} ({gain.interval} points)"
    if best == PLAIN:
        if gain is None:
            return Verdict("plain", f"Use {PLAIN} with logistic regression: {trained}.")
        how = f"better by {-gain.value:.1f} points" if gain.is_apart else "level"
        return Verdict(
            "plain", f"Do not pre-train: {PLAIN} with logistic regression are {how} ({gain.interval})."
        )
    assert above_plain is not None
    if above_plain.low > 0:
        return Verdict("use", f"Use {best} as it is: {above_plain.text} over {PLAIN}; {trained}.")
    how = "level with it" if not above_plain.is_apart else "better"
    return Verdict(
        "plain",
        f"Do not pre-train: {trained} beside {best}, and {PLAIN} with logistic regression are {how} "
        f"({above_plain.interval} points between the two).",
    )


def easier(valid: float, test: float) -> str:
    """A warning where the validation part says little of the test part, from the accuracies of one encoder; or ""."""
    if valid - test <= EASIER:
        return ""
    return (
        f"The validation part is easier than the test part ({100 * valid:.0f} against {100 * test:.0f} % right): what "
        "it shares with the training part, such as patients or devices, is not known. Say it by groups (--group-from); "
        "the choice of the candidates says little."
    )


def gain_by_labels(own: ClipEncoder, rival: ClipEncoder, task: m2dx.ClipTask) -> list[dict[str, float]]:
    """The gain in points by the number of labels, for ever more of the training part; the last entry has all."""
    fold, targets, logistic = task.folds[0], task.targets(), Logistic()
    total = len(fold.train) + len(fold.valid)
    found = []
    for size in [*(size for size in CURVE if size < total), total]:
        gains = []
        for draw in range(DRAWS if size < total else 1):
            part = fold if size == total else subset_fold(fold, size, task.clips, targets, draw)
            smaller = replace(task, folds=(part,))
            gains.append(Gain.of(*(logistic.evaluate(one, smaller, seeds=(0,))[0] for one in (own, rival))))
        means = {
            name: float(np.mean([getattr(gain, name) for gain in gains])) for name in ("value", "low", "high")
        }
        found.append({"labels": size, **means})
    return found


def from_labels(curve: Sequence[dict[str, float]]) -> int | None:
    """The number of labels from which on the whole interval of the gain is above 0; None: only with all."""
    number = None
    for point in reversed(curve):
        if point["low"] <= 0:
            break
        number = int(point["labels"])
    return None if number is None or number == curve[-1]["labels"] else number
