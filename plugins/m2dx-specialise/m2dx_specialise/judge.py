"""What encoders are worth: scores on the validation part, one test, and the verdict in a sentence."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
from m2dx_classify.sources import LabelledClips
from m2dx_probes.subsets import subset_fold
from scipy.stats import binomtest, t

import m2dx
from m2dx.contract.components import ClipEncoder, Fold
from m2dx.contract.wording import counted
from m2dx.data.csv_list import CsvDataset
from m2dx.data.division import deal
from m2dx.evaluation.bootstrap import difference
from m2dx.evaluation.features import FeatureCache
from m2dx.evaluation.logistic import Logistic
from m2dx.evaluation.splits import SPLITS
from m2dx_specialise.names import FEWEST_GROUPS

VALID_SHARES, FEWEST_VALID = (0.25, 0.33, 0.4, 0.5), 0.2
"""Of training and validation part together: the validation part that is dealt (the first with which both have two
classes), and the smallest one that is kept."""
TEST_FOLDS = 0.4
LONGEST_SECONDS = 10.0, 60.0  # of a clip that is encoded: where most are shorter than the first, and of all
MOST_CLIPS, MOST_SECONDS = 6_000, 60_000.0  # of a part that is scored
EASIER = 0.15  # how far a validation part may be above the test part, before it is told
FEWEST_TESTED = 15  # groups of a test, from which on the bootstrap over them is believed
WIDE = 10.0
"""Points that may be gained, for all that the test tells, before the verdict says that it does not tell much."""
FEWEST_CLIPS = 40  # labelled clips that a verdict needs
CURVE, DRAWS = (25, 50, 100, 200, 400, 800, 1600), 3
"""Numbers of labels that the gain is measured with, and draws of each."""


@dataclass(frozen=True)
class Parts:
    """The clips of a division."""

    train: tuple[m2dx.Clip, ...]  # labelled
    valid: tuple[m2dx.Clip, ...]  # labelled; candidates are chosen on it, and never learn its labels
    test: tuple[m2dx.Clip, ...]  # labelled; seen once
    others: tuple[m2dx.Clip, ...] = ()  # without labels, and of no group that is chosen by or tested

    @classmethod
    def read(cls, division: Path, pool: Path) -> Parts:
        """From the list of a division, and that of what may be trained on."""
        lists = (CsvDataset(path=path).clips() for path in (division, pool) if path.exists())
        return cls.of([clip for clips in lists for clip in clips])

    @classmethod
    def of(cls, clips: Sequence[m2dx.Clip]) -> Parts:
        """The same, of clips. A small validation part is dealt anew; of folds, the last two of five are the test."""
        labelled = [clip for clip in clips if clip.labels]
        tested = {"test", *_tested_folds(labelled)}
        test = tuple(clip for clip in labelled if clip.split in tested)
        rest = [clip for clip in labelled if clip.split not in tested]
        is_valid = [int(clip.split == "valid") for clip in rest]
        if sum(is_valid) < FEWEST_VALID * len(rest) and len({clip.group or clip.path for clip in rest}) > 1:
            is_valid = _dealt_valid(rest)
        train, valid = _parted(rest, is_valid)
        held = {clip.group for clip in (*valid, *test)} - {None}
        others = (clip for clip in clips if not clip.labels and clip.group not in held)
        return cls(train, valid, test, tuple(others))

    @property
    def labelled(self) -> tuple[m2dx.Clip, ...]:
        """Of all parts."""
        return self.train + self.valid + self.test

    @property
    def folds(self) -> tuple[str, ...]:
        """Their names; none where the division is one into training and test part."""
        names = {str(clip.split) for clip in self.labelled}
        return () if names & set(SPLITS) else tuple(sorted(names))

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
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        lacking = [name for name, part in parts.items() if len({clip.labels for clip in part}) < 2]
        if lacking:
            name, few = min(Counter(clip.labels[0] for clip in self.labelled).items(), key=lambda of: of[1])
            few_clips = f"{name!r} has {counted(few, 'clip')}, and groups must stay whole"
            return f"the {' and '.join(lacking)} part has fewer than two classes: {few_clips}"
        if len({clip.group or clip.path for clip in self.train}) < 2:
            return (
                f"the training part is of one group, and two are the least; {FEWEST_GROUPS} in all would do"
            )
        return None

    def task(self, name: Literal["choice", "test"], folder: Path, *, seed: int = 0) -> m2dx.ClipTask:
        """The task that candidates are chosen by (fitted to the training part, scored on the validation part), or the
        test (fitted to both). Features are kept in a folder."""
        fitted = self.train if name == "choice" else self.train + self.valid
        scored = self.valid if name == "choice" else self.test
        unit = unit_seconds(self.train + self.valid)
        clips = [replace(clip, split="train") for clip in _some(fitted, unit, seed)]
        clips += [replace(clip, split="test") for clip in _some(scored, unit, seed)]
        return m2dx.ClipTask.from_dataset(
            name,
            LabelledClips(name, clips),
            unit_seconds=unit,
            short_clips="pad",
            shared_groups="warn",
            cache=FeatureCache(folder),
        )

    def in_turn(self, task: m2dx.ClipTask) -> m2dx.ClipTask:
        """The test with each fold as the test part in turn, for encoders that have learnt nothing of the clips.

        It has more clips than the test; where the division has no folds, it is the test.
        """
        if not self.folds:
            return task
        folds = {(clip.path, clip.start): str(clip.split) for clip in self.labelled}
        clips = tuple(replace(clip, split=folds[clip.path, clip.start]) for clip in task.clips)
        of = np.array([clip.split for clip in clips])
        parts = {name: (np.flatnonzero(of != name), np.flatnonzero(of == name)) for name in self.folds}
        in_turn = tuple(Fold(name, rest, rest[:0], test) for name, (rest, test) in parts.items())
        return replace(task, clips=clips, folds=in_turn)


def _tested_folds(clips: Sequence[m2dx.Clip]) -> Sequence[str]:
    """The last two of five folds; or those before them that leave fewer classes without training or test clips."""
    of: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        of[str(clip.split)].update(clip.labels)
    folds, classes = sorted(of.keys() - set(SPLITS)), set[str]().union(*of.values())
    size = min(max(int(TEST_FOLDS * len(folds)), 1), len(folds))

    def lacking(tested: Sequence[str]) -> int:
        sides = tested, [fold for fold in folds if fold not in tested]
        return sum(len(classes.difference(*(of[fold] for fold in side))) for side in sides)

    return min(reversed(list(combinations(folds, size))), key=lacking)


def _dealt_valid(clips: Sequence[m2dx.Clip]) -> list[int]:
    """1 for the clips that are dealt to the validation part, 0 for the others."""
    for share in VALID_SHARES:
        is_valid: list[int] = deal(clips, [1 - share, share]).tolist()
        if all(len({clip.labels for clip in part}) > 1 for part in _parted(clips, is_valid)):
            break
    return is_valid


def _parted(clips: Sequence[m2dx.Clip], is_valid: Sequence[int]) -> list[tuple[m2dx.Clip, ...]]:
    return [tuple(clip for clip, of in zip(clips, is_valid, strict=True) if of == which) for which in (0, 1)]


def _some(clips: Sequence[m2dx.Clip], unit: float, seed: int) -> list[m2dx.Clip]:
    """All of them, or as many at random as `MOST_CLIPS` and, at so many seconds each, `MOST_SECONDS` allow."""
    most = min(MOST_CLIPS, int(MOST_SECONDS / unit))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(clips))[:most])
    return [clips[row] for row in chosen.tolist()]


def unit_seconds(clips: Sequence[m2dx.Clip]) -> float:
    """The length that clips are brought to: their mean, where a few long ones count as 10 s, and all as a minute."""
    seconds = np.array([clip.duration or 0.0 for clip in clips])
    longest = float(np.clip(np.median(seconds), *LONGEST_SECONDS))
    return max(round(float(np.minimum(seconds, longest).mean()), 3), 0.1)


def score(
    encoder: ClipEncoder, task: m2dx.ClipTask, name: str, settings: Mapping[str, Any] | None = None
) -> m2dx.Score:
    """By logistic regression, with the predictions; without settings, by those that its inner folds choose.

    Each clip counts the same, in whichever fold it is tested: folds of whole groups may be of very different sizes.
    """
    found = Logistic(**settings or {}).evaluate(encoder, task, seeds=(0,))[0]
    items = tuple(replace(item, clip=replace(item.clip, split="test")) for item in found.predictions)
    share = float(np.mean([item.label in item.clip.labels for item in items]))
    return replace(found, mean=share, values=(share,), ci95=None, predictions=items, encoder=name)


def choose(encoder: ClipEncoder, choice: m2dx.ClipTask) -> dict[str, Any]:
    """Layer, penalty and whitening for an encoder, by the validation part.

    No candidate has heard it. The training part they know too well, and have learnt its labels: by inner folds of it,
    their last layer and a weak penalty would seem best.
    """
    fold = choice.folds[0]
    found = Logistic().chosen(choice, choice.features(encoder), fold.fitted, fold.test)
    return {name: getattr(found, name) for name in ("c", "layers", "whiten")}


def loss_of(score: m2dx.Score, label_names: Sequence[str]) -> float:
    """Mean of the negative logarithm of the probability of the truth; of equal accuracies, the lower one is better."""
    said = [(item.probabilities or ())[label_names.index(item.clip.labels[0])] for item in score.predictions]
    return round(float(-np.log(np.maximum(said, 1e-6)).mean()), 6)


def _ahead(own: m2dx.Score, rival: m2dx.Score) -> list[int]:
    """1 for each clip that only the first has right, -1 for each that only the second has, 0 for the others."""
    one, other = ([item.label in item.clip.labels for item in of.predictions] for of in (own, rival))
    return [a - b for a, b in zip(one, other, strict=True)]


@dataclass(frozen=True)
class Gain:
    """A difference of two accuracies on the same clips in points, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, own: m2dx.Score, rival: m2dx.Score, *, for_others: bool = False) -> Gain:
        """How far the first is above the second.

        The interval is the bootstrap's, but it reaches 0 where the clips that only one of the two has right are so few
        that the exact sign test leaves chance (5 %), as the bootstrap is too sure of few clips; and so of few groups:
        `for_others`, which are not tested, it is as wide as Student's t over fewer than `FEWEST_TESTED` groups.
        """
        found = difference(own, rival)
        assert found is not None  # both are of one classifier, on the same clips
        value, low, high = (100 * found[name] for name in ("value", "low", "high"))
        ahead = _ahead(own, rival)
        only = [ahead.count(1), ahead.count(-1)]
        ends = [low, high]
        if not sum(only):  # the bootstrap knows no other clips
            bound = 100 * (1 - 0.025 ** (1 / len(ahead)))
            ends += [-bound, bound]
        elif binomtest(only[0], sum(only)).pvalue >= 0.05:
            ends.append(0.0)
        if for_others:
            ends += _of_groups([item.clip for item in own.predictions], ahead)
        return cls(value, min(ends), max(ends))

    @property
    def text(self) -> str:
        return f"{self.value:+.1f} points (95 %: {self.low:.1f} to {self.high:.1f})"

    @property
    def interval(self) -> str:
        return f"{self.low:+.1f} to {self.high:+.1f}"


def _of_groups(clips: Sequence[m2dx.Clip], ahead: Sequence[int]) -> list[float]:
    """Ends of the t interval of the groups' own gains in points, where they are few; of one or two, 0."""
    by_group: dict[str, list[int]] = defaultdict(list)
    for clip, gain in zip(clips, ahead, strict=True):
        by_group[clip.group or str(clip.path)].append(gain)
    gains = [100 * fmean(of) for of in by_group.values()]
    if not 2 < len(gains) < FEWEST_TESTED:
        return [0.0] if len(gains) <= 2 else []
    half = float(t.ppf(0.975, len(gains) - 1)) * stdev(gains) / math.sqrt(len(gains))
    return [fmean(gains) - half, fmean(gains) + half]


@dataclass(frozen=True)
class Comparison:
    """Two encoders on the same clips: accuracies in [0, 1], and how far the first is above the second."""

    own: str
    rival: str
    accuracy: float  # of the first
    rival_accuracy: float
    clips: int
    gain: Gain

    @classmethod
    def of(cls, own: m2dx.Score, rival: m2dx.Score, *, for_others: bool = False) -> Comparison:
        gain = Gain.of(own, rival, for_others=for_others)
        return cls(own.encoder, rival.encoder, own.mean, rival.mean, len(own.predictions), gain)


Kind = Literal["specialise", "use", "random", "plain", "none"]
PLAIN, RANDOM = "log-mel statistics", "random network"  # of a random one, what the name begins with


@dataclass(frozen=True)
class Verdict:
    """What to do, and why."""

    kind: Kind
    sentence: str


def strongest(gains: Mapping[str, Gain]) -> str:
    """The rival by which the gain is judged: of those that it is not beyond, else of all, the most accurate one."""
    return min(gains, key=lambda name: (gains[name].low > 0, gains[name].value))


def decide(
    gains: Mapping[str, Gain],
    start: str,
    above: Mapping[str, Gain],
    untrained: Gain,
    *,
    labels: int | None = None,
) -> Verdict:
    """The verdict of the test; all gains are on the same test clips.

    `gains`: how far the trained winner is above each encoder and baseline that needs no training; empty where nothing
    was trained. `start`: the best encoder at hand by the validation part. `above`: how far it is above log-mel
    statistics and the best random network. `untrained`: how far that network is above log-mel statistics. `labels`:
    from how many on the gain is beyond chance.

    Training is worth it where it is beyond all the others, whichever of them is the best on these clips. A start is of
    use where it is beyond log-mel statistics, and where the random network is, too, behind neither that one nor
    training; else that network is of use where it is beyond them. What the test leaves open is said.
    """
    trained = "nothing could be trained in the time"
    rival = strongest(gains) if gains else None
    if rival is not None:
        gain = gains[rival]
        if gain.low > 0:
            labelled = "" if labels is None else f", from {labels} labels on"
            sentence = f"Specialise: {gain.text} over the best of what you have ({rival}){labelled}."
            return Verdict("specialise", sentence)
        result = "loses" if gain.high < 0 else "is level"
        trained = f"training {result} ({gain.interval} points) beside {rival}"
    possible = min((gain.high for gain in gains.values()), default=0.0)
    random = next(name for name in above if name != PLAIN)
    other = random if above[PLAIN].low > 0 or above[random].high < 0 else PLAIN
    between = above[other]
    kind: Kind = "plain"
    how = f"{'behind' if between.high < 0 else 'level with'} {other} ({between.interval} points)"
    is_of_use = above[PLAIN].low > 0 and (above[random].high >= 0 or untrained.low <= 0)
    if is_of_use and untrained.low > 0 and start in gains and gains[start].low > 0:
        is_of_use = False  # the random network is level with what it is behind
        how = f"behind training ({-gains[start].high:+.1f} to {-gains[start].low:+.1f} points)"
    if is_of_use:
        kind, text = "use", f"Use {start} as it is: {above[PLAIN].text} over {PLAIN}; {trained}."
    elif untrained.low > 0:
        kind, text = (
            "random",
            f"Use {random} as it is: {untrained.text} over {PLAIN}; {trained}, and {start} is {how}.",
        )
    elif rival is None:
        text = f"Use {PLAIN} with logistic regression: {trained}, and {start} is {how}."
    elif rival == PLAIN:
        how = f"level ({gain.interval})"
        if gain.high < 0:
            how = f"better by {-gain.value:.1f} points ({-gain.high:+.1f} to {-gain.low:+.1f})"
        text = f"Do not pre-train: {PLAIN} with logistic regression are {how}."
    else:
        text = f"Do not pre-train: {trained}, {'which' if rival == start else f'and {start}'} is {how}."
    if kind == "plain":
        possible = max(possible, above[PLAIN].high, untrained.high)
    if possible > WIDE:
        text += f" But the test is too small to rule out gains of up to {possible:.1f} points: label clips of more "
        text += "groups, and ask again."
    return Verdict(kind, text)


def easier(name: str, valid: float, test: float, clips: tuple[int, int]) -> str:
    """A warning where the validation part says little of the test, from accuracies of one encoder on so many clips.

    "" where it may be chance (5 %).
    """
    shares = [(part * count + 1) / (count + 2) for part, count in zip((valid, test), clips, strict=True)]
    spread = 1.96 * math.sqrt(sum(of * (1 - of) / count for of, count in zip(shares, clips, strict=True)))
    if valid - test <= max(EASIER, spread):
        return ""
    return (
        f"The validation part is easier than the test ({name}: {100 * valid:.0f} against {100 * test:.0f} % right): "
        "what it shares with the training part, such as patients or devices, is not known. Say it by groups "
        "(--group-from); the choice of the candidates says little."
    )


def guessed(score: m2dx.Score) -> str:
    """A warning where a classifier tells no more than one that always says the commonest label; or ""."""
    ((label, count),) = Counter(item.clip.labels[0] for item in score.predictions).most_common(1)
    share = count / len(score.predictions)
    common = replace(score, predictions=tuple(replace(item, label=label) for item in score.predictions))
    ahead = _ahead(score, common)
    own, other = ahead.count(1), ahead.count(-1)
    if own and binomtest(own, own + other, alternative="greater").pvalue < 0.025:
        return ""
    return (
        f"A classifier that says {label!r} of every clip has {100 * share:.0f} % right, and no more is shown here: "
        "these recordings do not tell these labels. Are they the right ones (--label-from)?"
    )


def of_classifier(test: Mapping[str, Any]) -> str:
    """What the test says of the classifier that is given, in words."""
    found = test["classifier"]
    spread = " %" if found["ci95"] is None else f" ± {100 * found['ci95']:.1f} %"
    if found["ci95"] == 0.0:  # all are right, or none: the bootstrap knows no other clips
        bound = 100 * 0.025 ** (1 / found["clips"])
        spread = f" % (95 %: {f'{bound:.0f} or more' if found['accuracy'] else f'{100 - bound:.0f} or less'})"
    ahead = test["verdict"]["kind"] == "plain" and found["encoder"] != PLAIN
    why = f" (level with {PLAIN}, and right more often on these clips)" if ahead else ""
    return (
        f"The classifier is on {found['encoder']}{why}: {100 * found['accuracy']:.1f}{spread} of "
        f"{found['clips']:,} clips are right, each told by a classifier that has not learnt it."
    )


def gain_by_labels(
    own: ClipEncoder, rival: ClipEncoder, task: m2dx.ClipTask, settings: Mapping[str, Any] | None = None
) -> list[dict[str, float]]:
    """The gain in points by the number of labels, for ever more of the training part; the last entry has all.

    `settings` are of the regression on the first.
    """
    fold, targets = task.folds[0], task.targets()
    total = len(fold.fitted)
    found = []
    for size in [*(size for size in CURVE if size < total), total]:
        gains = []
        for draw in range(DRAWS if size < total else 1):
            part = fold if size == total else subset_fold(fold, size, task.clips, targets, draw)
            smaller = replace(task, folds=(part,))
            gains.append(
                Gain.of(
                    *(score(of, smaller, "", its) for of, its in ((own, settings), (rival, None))),
                    for_others=True,
                )
            )
        mean = Gain(*np.mean([astuple(gain) for gain in gains], axis=0).tolist())
        found.append({"labels": size, **asdict(mean)})
    return found


def from_labels(curve: Sequence[dict[str, float]]) -> int | None:
    """The number of labels from which on the whole interval of the gain is above 0; None: only with all."""
    number = None
    for point in reversed(curve):
        if point["low"] <= 0:
            break
        number = int(point["labels"])
    return None if number is None or number == curve[-1]["labels"] else number
