"""Ridge regression on frozen features, for tasks whose labels are numbers; nothing in it is random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat
from torch import Tensor

from m2dx.contract.components import Clip, ClipEncoder, EvaluationTask, Evaluator, Features, Score
from m2dx.data.division import deal
from m2dx.evaluation.features import Standardiser

ALPHAS = tuple(float(10**power) for power in np.arange(-1, 6.5, 0.5))
"""Strengths of the penalty that are tried."""
INNER_FOLDS = 3
DRAWS = 1_000
Values = NDArray[np.float64]
Measure = Callable[[Values, Values], float]


@dataclass(frozen=True, kw_only=True)
class Ridge(Evaluator):
    """Ridge regression on standardised frozen features, for a task with `target: value`; no seed changes it.

    Features are the mean and standard deviation over time of a layer, or clip features of encoders without frames.
    Training and validation part are one here: both are fitted, with the penalty and the layer whose squared error is
    lowest in three inner folds of them, in which groups (and files) stay together; of one group alone these are the
    last layer and the penalty of the middle. Scores are 1 where every value is right, 0 for a constant: `r2`, of
    squared errors, `d2_absolute_error`, of absolute ones against the median, and `pearson`, the correlation. Details
    have `mae`, the mean absolute error in the label's unit. Values are per fold. Intervals are from the bootstrap:
    clips, or whole groups, of the test part drawn again and again, the wider one.

    Options:
        alpha: strength of the penalty, as in scikit-learn; default the best of 0.1 to 1e6.
        layers: best of the patch embedding and up to five blocks, or last.
    """

    name = "ridge"
    needs_wav = False
    predicts: ClassVar[Literal["class", "value"]] = "value"

    alpha: PositiveFloat | None = None
    layers: Literal["best", "last"] = "best"

    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """Three scores; the seeds are not used."""
        found, fits, folds = task.features(encoder), [], []
        for fold in task.folds:
            rows = fold.fitted
            fit = self.fit(found, rows, [task.clips[row] for row in rows])
            fits.append(fit)
            predicted = fit(found.pooled(fit.layer)[torch.from_numpy(fold.test)]).numpy()
            folds.append(
                _Tested(
                    found.y[torch.from_numpy(fold.test)].double().numpy(),
                    predicted,
                    [task.clips[row] for row in fold.test],
                )
            )
        mae = _interval(folds, mean_absolute_error)
        details = {
            "folds": len(task.folds),
            "clips": len(task.clips),
            "bad_clips": len(task.bad),
            "unit_seconds": task.unit_seconds,
            "warnings": list(task.warnings),
            "alpha": [fit.alpha for fit in fits],
            "layer": [fit.layer for fit in fits],
            "mae": {"mean": float(np.mean([of.measure(mean_absolute_error) for of in folds])), "ci95": mae},
        }
        scores = []
        for metric, measure in MEASURES.items():
            values = tuple(of.measure(measure) for of in folds)
            scores.append(
                Score(
                    task=task.name,
                    metric=metric,
                    mean=float(np.mean(values)),
                    ci95=_interval(folds, measure),
                    values=values,
                    protocol=self.name,
                    details=details,
                )
            )
        return scores

    def fit(self, found: Features, rows: NDArray[np.int64], clips: Sequence[Clip]) -> RidgeFit:
        """The regression of the clips in `rows`."""
        chosen = torch.from_numpy(rows)
        y = found.y[chosen].double()
        parts = torch.from_numpy(_inner_parts(clips))
        layers: list[int | None] = sorted(found.layers)  # type: ignore[assignment]
        best: tuple[float, float, int | None] | None = None
        only_last = self.layers == "last" or len(parts.unique()) == 1  # nothing is held out to choose by
        for layer in (layers[-1:] if only_last else layers) or [None]:
            x = found.pooled(layer)[chosen].double()
            for alpha, error in self._errors(x, y, parts).items():
                if best is None or error < best[0]:
                    best = (error, alpha, layer)
        assert best is not None
        _, alpha, layer = best
        x = found.pooled(layer)[chosen].double()
        standardise = Standardiser.fit(x)
        weight = _Solver(standardise(x), y).weight(alpha) / standardise.std
        return RidgeFit(weight, float(y.mean() - weight @ standardise.mean), alpha, layer)

    def _errors(self, x: Tensor, y: Tensor, parts: Tensor) -> dict[float, float]:
        """By penalty, the sum of squared errors of clips (n,) that are held out by their inner part."""
        alphas = ALPHAS if self.alpha is None else (self.alpha,)
        errors = dict.fromkeys(alphas, 0.0)
        for part in parts.unique():
            kept, held = parts != part, parts == part
            if not kept.any():  # of one group alone there is nothing to choose by
                return dict.fromkeys(alphas, 0.0) | {alphas[len(alphas) // 2]: -1.0}
            standardise = Standardiser.fit(x[kept])
            solver, away = _Solver(standardise(x[kept]), y[kept]), standardise(x[held])
            for alpha in alphas:
                error = away @ solver.weight(alpha) + y[kept].mean() - y[held]
                errors[alpha] += float(error.square().sum())
        return errors


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """A fitted regression: features (n, D), which it standardises itself, to values (n,)."""

    weight: Tensor  # (D,), float64
    bias: float
    alpha: float
    layer: int | None  # None: the encoder gives no frames

    def __call__(self, x: Tensor) -> Tensor:
        values: Tensor = x.double() @ self.weight + self.bias
        return values


class _Solver:
    """The closed form for every penalty, from one decomposition of standardised features (n, D)."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        u, self.s, self.vh = torch.linalg.svd(x, full_matrices=False)
        self.uy = u.mT @ (y - y.mean())

    def weight(self, alpha: float) -> Tensor:
        """(D,) that minimises the squared error plus alpha times its own squared length."""
        found: Tensor = self.vh.mT @ (self.s / (self.s.square() + alpha) * self.uy)
        return found


def _inner_parts(clips: Sequence[Clip]) -> NDArray[np.int64]:
    """The inner fold of each clip: whole groups (or files), whatever their values."""
    count = min(INNER_FOLDS, len({clip.unit for clip in clips}))
    return deal([replace(clip, labels=()) for clip in clips], [1 / count] * count)


# Measures


def r2(y: Values, predicted: Values) -> float:
    """1 - squared error / squared error of the mean; 0 where all values are equal."""
    spread = float(np.square(y - y.mean()).sum())
    return 1.0 - float(np.square(y - predicted).sum()) / spread if spread else 0.0


def d2_absolute_error(y: Values, predicted: Values) -> float:
    """1 - absolute error / absolute error of the median; 0 where all values are equal."""
    spread = float(np.abs(y - np.median(y)).sum())
    return 1.0 - float(np.abs(y - predicted).sum()) / spread if spread else 0.0


def pearson(y: Values, predicted: Values) -> float:
    """Pearson's correlation; 0 where all values of one are equal."""
    a, b = y - y.mean(), predicted - predicted.mean()
    spread = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / spread if spread else 0.0


def mean_absolute_error(y: Values, predicted: Values) -> float:
    """In the unit of the values."""
    return float(np.abs(y - predicted).mean())


MEASURES = {"r2": r2, "d2_absolute_error": d2_absolute_error, "pearson": pearson}


@dataclass(frozen=True)
class _Tested:
    """The test part of a fold."""

    y: Values
    predicted: Values
    clips: Sequence[Clip]

    def measure(self, measure: Measure, rows: NDArray[np.int64] | None = None) -> float:
        chosen = slice(None) if rows is None else rows
        return measure(self.y[chosen], self.predicted[chosen])


def _interval(folds: Sequence[_Tested], measure: Measure) -> float:
    """Half of the 95 % interval of the mean over the folds: the wider one of draws of clips and of whole groups."""
    widths = []
    for units in ([None] * len(folds), [_units(of.clips) for of in folds]):
        random, means = np.random.default_rng(0), []
        for _ in range(DRAWS):
            drawn = [_drawn(len(of.y), groups, random) for of, groups in zip(folds, units, strict=True)]
            means.append(np.mean([of.measure(measure, rows) for of, rows in zip(folds, drawn, strict=True)]))
        low, high = np.percentile(means, [2.5, 97.5])
        widths.append(float(high - low) / 2)
    return max(widths)


def _drawn(
    count: int, groups: Sequence[NDArray[np.int64]] | None, random: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of clips, or of groups of them, drawn with replacement."""
    if groups is None:
        return random.integers(count, size=count)
    return np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))])


def _units(clips: Sequence[Clip]) -> list[NDArray[np.int64]]:
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        rows[clip.unit].append(row)
    return [np.array(of, dtype=np.int64) for of in rows.values()]
