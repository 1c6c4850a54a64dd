"""Metrics of predictions with 95 % intervals, from clips or whole groups of them that are drawn again and again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from m2dx.contract.components import Clip, Prediction, Score

DRAWS, FEWEST_DRAWS = 1_000, 100
MOST_COMPARISONS = 4e9
"""Of pairs of clips by draw; sets of more than 2,000 clips have fewer draws for what ranks them."""
ROWS = 1_000  # clips that are compared with all others at a time
ENTRY = ("value", "low", "high")
BINS = 15  # of the calibration error, over the probability of the most probable class

Array = NDArray[np.float64]
Statistic = Callable[[NDArray[np.float32]], Mapping[str, Array]]
"""Values by name, (draws, ...), from how often each draw has each clip, (draws, n)."""


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """The same draws for all statistics of the same clips: of clips, and where some belong together, of groups.

    Clips whose group is not known are a group by file. An interval is the wider one of those over clips and groups.
    """

    weights: Sequence[NDArray[np.float32]]  # how often each draw has each clip, (draws, n); by groups, too

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> Bootstrap:
        numbers: dict[tuple[str, str], int] = {}
        groups = [numbers.setdefault(clip.unit, len(numbers)) for clip in clips]
        weights = [_drawn(len(clips))]
        if len(numbers) < len(clips):
            weights.append(_drawn(len(numbers))[:, groups])
        return cls(weights)

    def first(self, draws: int) -> Bootstrap:
        """The same with fewer draws."""
        return Bootstrap([weights[:draws] for weights in self.weights])

    def intervals(self, statistic: Statistic) -> dict[str, Array]:
        """Value, low and high end, (3, ...), of each; NaN where none of the clips says anything."""
        found = {name: value[0] for name, value in statistic(np.ones_like(self.weights[0][:1])).items()}
        ends: dict[str, list[Array]] = {name: [] for name in found}
        for weights in self.weights:
            for name, values in statistic(weights).items():
                ends[name].append(_ends(values))
        return {name: np.stack([value, *_widest(ends[name])]) for name, value in found.items()}


def _drawn(count: int) -> NDArray[np.float32]:
    """How often each of `count` units is drawn, (DRAWS, count)."""
    drawn = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    drawn += count * np.arange(DRAWS)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float32)


def _ends(values: Array) -> Array:
    """(2, ...), of draws that say something; NaN without any."""
    flat = values.reshape(len(values), -1)
    columns = [column[~np.isnan(column)] for column in flat.T]
    ends = [np.percentile(column, [2.5, 97.5]) if len(column) else [np.nan] * 2 for column in columns]
    return np.array(ends).T.reshape(2, *values.shape[1:])


def _widest(ends: Sequence[Array]) -> Array:
    widest = ends[0]
    for other in ends[1:]:
        widest = np.where(other[1] - other[0] > widest[1] - widest[0], other, widest)
    return widest


@dataclass(frozen=True)
class _Outcomes:
    """Truth and predictions as arrays."""

    hot: NDArray[np.float32]  # (n, C), the truth
    predicted: NDArray[np.float32]  # (n, C), the most probable class; of several labels those above a half
    probabilities: NDArray[np.float32] | None  # (n, C); None: not known
    multi_label: bool

    @classmethod
    def of(
        cls, predictions: Sequence[Prediction], label_names: Sequence[str], *, multi_label: bool
    ) -> _Outcomes:
        column = {label: number for number, label in enumerate(label_names)}
        hot = np.zeros((len(predictions), len(column)), dtype=np.float32)
        predicted = np.zeros_like(hot)
        for row, item in enumerate(predictions):
            hot[row, [column[label] for label in item.clip.labels]] = 1.0
            predicted[row, column[item.label]] = 1.0
        multi_label, probabilities = multi_label or bool((hot.sum(1) > 1).any()), None
        if all(item.probabilities is not None for item in predictions):
            probabilities = np.array([item.probabilities for item in predictions], dtype=np.float32)
            predicted = (probabilities >= 0.5).astype(np.float32) if multi_label else predicted
        return cls(hot, predicted, probabilities, multi_label)

    def rows(self, rows: NDArray[np.int64]) -> _Outcomes:
        """Some of the clips."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return replace(self, hot=self.hot[rows], predicted=self.predicted[rows], probabilities=probabilities)

    def by_class(self, weights: NDArray[np.float32]) -> dict[str, Array]:
        """Precision (0 where a class is never predicted), recall and F1 of each class, (draws, C)."""
        counted = (self.hot * self.predicted, self.predicted, self.hot)
        right, predicted, true = ((weights @ what).astype(float) for what in counted)
        with np.errstate(invalid="ignore"):
            precision = np.where(predicted > 0, right / predicted, np.where(true > 0, 0.0, np.nan))
            return {"precision": precision, "recall": right / true, "f1": 2 * right / (predicted + true)}

    def counted(self, weights: NDArray[np.float32]) -> dict[str, Array]:
        """What follows from sums over clips, (draws,)."""
        found, clips = {}, np.maximum(weights.sum(1), 1e-9)
        if not self.multi_label:
            right = (self.hot * self.predicted).sum(1)
            found["accuracy"] = weights @ right / clips
            found["balanced_accuracy"] = _mean(self.by_class(weights)["recall"])
            if self.probabilities is not None:
                top = self.probabilities.max(1)
                bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)  # (low, high]
                gaps = np.eye(BINS, dtype=np.float32)[bins] * (top - right)[:, None]
                found["ece"] = np.abs(weights @ gaps).sum(1) / clips
        return {**found, "macro_f1": _mean(self.by_class(weights)["f1"])}

    def ranked(self, weights: NDArray[np.float32]) -> dict[str, Array]:
        """Means over classes of what follows from the order of the clips by probability, (draws,)."""
        assert self.probabilities is not None
        found: dict[str, list[Array]] = {"auroc": [], "mAP": []}
        for scores, hot in zip(self.probabilities.T, self.hot.T, strict=True):
            if not hot.any():
                continue
            area, precision = _ranked(weights, scores, hot > 0, with_precision=self.multi_label)
            found["mAP"] += [precision] * self.multi_label  # 1 where all clips are positive, as in the score
            found["auroc"] += [area] * (not hot.all())
        return {name: _mean(np.stack(values, axis=1)) for name, values in found.items() if values}


def _mean(values: Array) -> Array:
    """Over classes, (draws, C) -> (draws,), of those that say something."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, values, 0.0).sum(1) / known.sum(1)
    return mean


def _ranked(
    weights: NDArray[np.float32], scores: NDArray[np.float32], hot: NDArray[np.bool_], *, with_precision: bool
) -> tuple[Array, Array]:
    """Area under the ROC curve and average precision of a class, each (draws,); NaN without positives or negatives."""
    positive = weights[:, hot]
    above, precision = np.zeros(len(weights)), np.zeros(len(weights))
    for first in range(0, positive.shape[1], ROWS):
        mine, some = scores[hot][first : first + ROWS, None], positive[:, first : first + ROWS]
        wins = ((mine > scores) + 0.5 * (mine == scores)) * ~hot  # (rows, n)
        above += (some * (weights @ wins.T.astype(np.float32))).sum(1)
        if with_precision:
            right, all_ = (
                part @ (mine <= others).T.astype(np.float32)
                for part, others in ((positive, scores[hot]), (weights, scores))
            )
            precision += np.where(some > 0, some * right / np.maximum(all_, 1e-9), 0.0).sum(1)
    count = positive.sum(1, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / (count * (weights.sum(1) - count)), precision / count


def _over_folds(clips: Sequence[Clip], of_rows: Callable[[NDArray[np.int64]], Statistic]) -> Statistic:
    """The mean over the folds, as a score's is, of what a statistic says of the test clips of each."""
    splits = np.array([str(clip.split) for clip in clips])
    folds = [np.flatnonzero(splits == split) for split in dict.fromkeys(splits.tolist())]
    statistics = [of_rows(rows) for rows in folds]

    def mean(weights: NDArray[np.float32]) -> dict[str, Array]:
        found: dict[str, list[Array]] = defaultdict(list)
        for rows, statistic in zip(folds, statistics, strict=True):
            for name, values in statistic(weights[:, rows]).items():
                found[name].append(np.where(weights[:, rows].any(1), values, np.nan))
        return {name: _mean(np.stack(values, axis=1)) for name, values in found.items()}

    return mean


def with_metrics(score: Score, label_names: Sequence[str]) -> Score:
    """The score with `metrics` and `per_class` in its details, if it has predictions; a single value gets its interval.

    Each is a value with the ends of its interval: `metrics` are means over the folds, as the score is, `per_class`
    counts the test clips of all folds together. Of several classifiers, both are of the first one.
    """
    if not score.predictions or "metrics" in score.details or not label_names:
        return score
    outcomes = _Outcomes.of(score.predictions, label_names, multi_label=score.metric == "mAP")
    if outcomes.multi_label and outcomes.probabilities is None:
        return score
    clips = [item.clip for item in score.predictions]
    draws = Bootstrap.of(clips)
    found = draws.intervals(_over_folds(clips, lambda rows: outcomes.rows(rows).counted))
    if outcomes.probabilities is not None:
        few = max(int(MOST_COMPARISONS / len(outcomes.probabilities) ** 2), FEWEST_DRAWS)
        found |= draws.first(few).intervals(_over_folds(clips, lambda rows: outcomes.rows(rows).ranked))
    classes = draws.intervals(outcomes.by_class)
    per_class = {
        name: {
            "clips": int(outcomes.hot[:, column].sum()),
            **{metric: _entry(values[:, column]) for metric, values in classes.items()},
        }
        for column, name in enumerate(label_names)
    }
    ci95 = score.ci95
    if ci95 is None and score.metric in found and len(clips) > 1:
        ci95 = float(found[score.metric][2] - found[score.metric][1]) / 2
    metrics = {name: _entry(values) for name, values in found.items()}
    source = "the first classifier, means over the folds"
    details = {**score.details, "metrics_of": source, "metrics": metrics, "per_class": per_class}
    return replace(score, ci95=ci95, details=details)


def difference(own: Score, rival: Score) -> dict[str, float] | None:
    """How far the accuracy of a score is above another's on the same clips, in [-1, 1], with its interval.

    None where one lacks predictions, they are of one clip alone, or of one of several classifiers.
    """
    clips = [item.clip for item in own.predictions]
    several = any(score.details.get("classifiers", len(score.values)) != 1 for score in (own, rival))
    alike = len(clips) > 1 and clips == [item.clip for item in rival.predictions]
    if several or own.metric != "accuracy" or not alike:
        return None
    right = np.array([[item.label in item.clip.labels for item in s.predictions] for s in (own, rival)])
    gains = right[0].astype(np.float32) - right[1]

    def mean(rows: NDArray[np.int64]) -> Statistic:
        return lambda weights: {"gain": weights @ gains[rows] / np.maximum(weights.sum(1), 1e-9)}

    found = Bootstrap.of(clips).intervals(_over_folds(clips, mean))
    return {name: round(float(value), 6) for name, value in zip(ENTRY, found["gain"], strict=True)}


def _entry(values: Array) -> dict[str, float | None]:
    """A value and the ends of its interval, as JSON can have them."""
    return {n: None if np.isnan(v) else round(float(v), 6) for n, v in zip(ENTRY, values, strict=True)}
