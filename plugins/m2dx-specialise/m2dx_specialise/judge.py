"""What encoders are worth: scores on the validation part, one test, and the verdict in a sentence."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
from m2dx_probes.subsets import subset_fold
from scipy.stats import binomtest, t

import m2dx
from m2dx.contract.components import ClipEncoder
from m2dx.evaluation.bootstrap import difference
from m2dx.evaluation.logistic import Logistic

EASIER = 0.15  # how far a validation part may be above the test part, before it is told
FEWEST_TESTED = 15  # groups of a test, from which on the bootstrap over them is believed
WIDE = 10.0
"""Points that may be gained, for all that the test tells, before the verdict says that it does not tell much."""
CURVE, DRAWS = (25, 50, 100, 200, 400, 800, 1600), 3
"""Numbers of labels that the gain is measured with, and draws of each."""


def score(
    encoder: ClipEncoder, task: m2dx.ClipTask, name: str, settings: Mapping[str, Any] | None = None
) -> m2dx.Score:
    """By logistic regression, with the predictions; without settings, by those that its inner folds choose.

    Each clip counts the same, in whichever fold it is tested: folds of whole groups may be of very different sizes.
    """
    found = Logistic(**settings or {}).evaluate(encoder, task, seeds=(0,))[0]
    items = tuple(replace(item, clip=replace(item.clip, split="test")) for item in found.predictions)
    return joined([replace(found, predictions=items, encoder=name)])


def joined(scores: Sequence[m2dx.Score]) -> m2dx.Score:
    """The score of tests of one encoder, or of one way to train, on different clips."""
    items = tuple(item for score in scores for item in score.predictions)
    share = float(np.mean([item.label in item.clip.labels for item in items]))
    return replace(scores[0], mean=share, values=(share,), ci95=None, predictions=items)


def choose(encoder: ClipEncoder, choice: m2dx.ClipTask, *, trained: bool = False) -> dict[str, Any]:
    """Layer, penalty and whitening for an encoder, by the validation part.

    No candidate has heard it. The training part they know too well, and have learnt its labels: by inner folds of it,
    their last layer and a weak penalty would seem best. Of a `trained` one the patch embedding is left out: it is
    frozen, so that it is that of the start or of a random network, which are scored themselves.
    """
    fold, features = choice.folds[0], choice.features(encoder)
    regression = Logistic(layers=tuple(sorted(features.layers)[1:])) if trained else Logistic()
    found = regression.chosen(choice, features, fold.fitted, fold.test)
    return {name: getattr(found, name) for name in ("c", "layers", "whiten")}


def on(score: m2dx.Score, clips: Sequence[m2dx.Clip]) -> m2dx.Score:
    """The score on these of the clips that it is of."""
    keys = {(clip.path, clip.start) for clip in clips}
    items = tuple(item for item in score.predictions if (item.clip.path, item.clip.start) in keys)
    return joined([replace(score, predictions=items)])


def loss_of(score: m2dx.Score, label_names: Sequence[str]) -> float:
    """Mean of the negative logarithm of the probability of the truth; of equal accuracies, the lower one is better."""
    said = [(item.probabilities or ())[label_names.index(item.clip.labels[0])] for item in score.predictions]
    return round(float(-np.log(np.maximum(said, 1e-6)).mean()), 6)


def rank(result: Mapping[str, Any]) -> tuple[float, float]:
    """Orders results: the more accurate is better, of equal ones the one with the lower loss."""
    return float(result["accuracy"]), -float(result.get("loss", 0.0))


def best_of(results: Mapping[str, Any]) -> str:
    """The name of the best result; of equal ones, the first."""
    return max(results, key=lambda name: rank(results[name]))


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
    by_group: dict[tuple[str, str], list[int]] = defaultdict(list)
    for clip, gain in zip(clips, ahead, strict=True):
        by_group[clip.unit].append(gain)
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
    is_behind = start in gains and gains[start].low > 0 and gains[PLAIN].high >= 0
    if is_of_use and untrained.low > 0 and is_behind:
        is_of_use = False  # the random network is level with what it is behind
        how = f"behind training ({-gains[start].high:+.1f} to {-gains[start].low:+.1f} points)"
    if is_of_use:
        kind, text = "use", f"Use {start} as it is: {above[PLAIN].text} over {PLAIN}; {trained}"
        if between.high < 0:
            text += f", and {start} is {how}, which is not beyond {PLAIN}"
        text += "."
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


Test = tuple[ClipEncoder, m2dx.ClipTask, Mapping[str, Any] | None]
"""An encoder, the task that tests it, of one fold, and the settings of its regression."""


def gain_by_labels(tests: Sequence[Test], rival: ClipEncoder) -> list[dict[str, float]]:
    """The gain in points by the number of labels, for ever more of the training part; the last entry has all.

    Where tests have other numbers of labels, the last entry has as many as the smallest.

    Of several tests, each of an encoder of its own, the gain is that on the clips of all.
    """
    total = min(len(task.folds[0].fitted) for _, task, _ in tests)
    found = []
    for size in [*(size for size in CURVE if size < total), total]:
        gains = []
        for draw in range(DRAWS if size < total else 1):
            pairs = []
            for own, task, settings in tests:
                (fold,) = task.folds
                is_all = size == len(fold.fitted)
                part = fold if is_all else subset_fold(fold, size, task.clips, task.targets(), draw)
                smaller = replace(task, folds=(part,))
                pairs.append([score(of, smaller, "", its) for of, its in ((own, settings), (rival, None))])
            gains.append(Gain.of(*map(joined, zip(*pairs, strict=True)), for_others=True))
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
