"""Logistic regression on frozen features; nothing in it is random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat
from torch import Tensor

from m2dx.contract.components import Clip, ClipEncoder, EvaluationTask, Evaluator, Features, Score
from m2dx.data.division import deal
from m2dx.evaluation.features import Standardiser
from m2dx.evaluation.linear import losses_of
from m2dx.evaluation.metrics import predictions_of, probabilities_of, score_of, summarise
from m2dx.evaluation.solver import Basis, Regression

CS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Inverse strengths of the penalty that are tried, the strongest penalty first."""
INNER_FOLDS = 3
INNER_TOL = 1e-2
"""Of the fits that only choose."""


@dataclass(frozen=True)
class LogisticLayer:
    """A fitted classifier: features (n, D), which it standardises itself, to logits (n, C)."""

    weight: Tensor  # (C, D), float64
    bias: Tensor  # (C,), float64
    c: float

    def __call__(self, x: Tensor) -> Tensor:
        return (x.double() @ self.weight.mT + self.bias).float()


@dataclass(frozen=True, kw_only=True)
class Logistic(Evaluator):
    """Logistic regression with an L2 penalty on standardised frozen features; accuracy or mAP. No seed changes it.

    Features are the mean and, where the encoder gives frames, the standard deviation over time. Training and validation
    part are one here: both are fitted, with the penalty whose loss is lowest in three inner folds of them, in which
    groups (and files) stay together. Values are per fold, and there is no interval for a single split.

    Options:
        c: inverse strength of the penalty, as in scikit-learn; default the best of 1e-4 to 10.
    """

    name = "logistic"
    needs_wav = False

    c: PositiveFloat | None = None

    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """One score; the seeds are not used."""
        found = task.features(encoder)
        by_fold, chosen, predictions = [], [], []
        for fold in task.folds:
            layer = self.fit(task, found, np.sort(np.concatenate([fold.train, fold.valid])))
            logits = layer(statistics_of(found)[fold.test])
            by_fold.append([score_of(logits, found.y[fold.test])])
            chosen.append(layer.c)
            probabilities = probabilities_of(logits, multi_label=task.multi_label)
            predictions += predictions_of(task, fold, probabilities)
        details = {"c": chosen}
        return [summarise(task, by_fold, protocol=self.name, details=details, predictions=predictions)]

    def fit(self, task: EvaluationTask, found: Features, rows: NDArray[np.int64]) -> LogisticLayer:
        """The classifier of the clips in `rows`."""
        x, y, clips = statistics_of(found)[rows].double(), found.y[rows], [task.clips[row] for row in rows]
        standardise = Standardiser.fit(x)
        basis = Basis.of(standardise(x))
        c = _best_c(basis.z, y, clips, len(task.label_names)) if self.c is None else self.c
        weight, bias = Regression(basis.z, y, len(task.label_names)).fit(c)
        weight = basis.on_features(weight) / standardise.std
        return LogisticLayer(weight, bias - weight @ standardise.mean, c)


def statistics_of(found: Features) -> Tensor:
    """Mean and deviation (n, 2 * D), or the features (n, D) of encoders without frames."""
    return found.x if found.deviation is None else torch.cat([found.x, found.deviation], dim=1)


def _best_c(x: Tensor, y: Tensor, clips: Sequence[Clip], num_classes: int) -> float:
    """The one of `CS` with the lowest loss on held-out clips; none beyond the first that is worse is tried."""
    groups = len({clip.group or clip.path for clip in clips})
    if groups < 2:
        return 1.0
    parts = torch.from_numpy(deal(clips, [1 / min(INNER_FOLDS, groups)] * min(INNER_FOLDS, groups)))
    inner = [
        (parts == part, Regression(x[parts != part], y[parts != part], num_classes, tol=INNER_TOL))
        for part in parts.unique()
    ]
    best, lowest = CS[0], float("inf")
    for c in CS:
        loss = 0.0
        for held, path in inner:
            weight, bias = path.fit(c)
            loss += float(losses_of((x[held] @ weight.mT + bias)[None], y[None, held]).sum())
        if loss >= lowest:
            break
        best, lowest = c, loss
    return best
