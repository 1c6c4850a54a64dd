"""Logistic regression on frozen features; nothing in it is random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor

from m2dx.contract.components import ClipEncoder, EvaluationTask, Evaluator, Features, Pooling, Score
from m2dx.evaluation.features import Standardiser, check_layers
from m2dx.evaluation.metrics import losses_of, predictions_of, probabilities_of, score_of, summarise
from m2dx.evaluation.solver import MOST_DOUBLE, Basis, Regression
from m2dx.evaluation.splits import inner_folds

CS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Inverse strengths of the penalty that are tried, the strongest penalty first."""
FAR_WORSE = 1.5
"""As a factor of the loss; it may rise a little before it falls, where the inner folds are of few groups."""
FITTED = -1  # the inner fold of a clip that is never held out
HALF = 0.5
"""The whitening that is tried."""
TOL, INNER_TOL = 1e-4, 1e-2  # of the last fit, and of those that only choose


@dataclass(frozen=True, eq=False)
class LogisticLayer:
    """A fitted classifier: pooled features of a layer (n, D), which it standardises itself, to logits (n, C)."""

    weight: Tensor  # (C, D), float64
    bias: Tensor  # (C,), float64
    c: float
    layer: int | None  # of the encoder; None: it gives no frames
    whiten: float
    held_out: str  # what the inner folds held out together

    def __call__(self, x: Tensor) -> Tensor:
        return (x.double() @ self.weight.mT + self.bias).float()


@dataclass(frozen=True, kw_only=True)
class Logistic(Evaluator):
    """Logistic regression with an L2 penalty on standardised frozen features; accuracy or mAP. No seed changes it.

    Training and validation part are one here: both are fitted. Penalty, layer and whitening are those with the lowest
    loss in three inner folds of them, in which groups (and files) stay together: first the penalty for the last layer,
    then the layer, then the penalty again, at last the same with half of the whitening. Values are per fold. An encoder
    without frames has one layer and no deviation. An encoder that was trained on the clips, with their labels above
    all, knows them too well to choose by them: its last layer and a weak penalty seem best. There, let `chosen_by` be
    valid.

    Options:
        c: inverse strength of the penalty, as in scikit-learn; default the best of 1e-4 to 10.
        layers: best of the patch embedding (0) and up to five blocks, last, or a list of blocks: the best of them.
        pooling: over time, the mean and the standard deviation, or one of mean and maximum.
        class_weights: balanced gives each class the same weight in the loss; default each clip.
        whiten: power by which the axes of the features' covariance are brought to one length, so that short
            ones cost less penalty: 0 is scikit-learn's regression; default the better of 0 and 0.5.
        chosen_by: folds, the inner folds, or valid, the validation part, where there is one; all layers are tried with
            all penalties then, and both parts fitted.
    """

    name = "logistic"
    needs_wav = False

    c: PositiveFloat | None = None
    layers: Literal["best", "last"] | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = "best"
    pooling: Pooling = "mean_deviation"
    class_weights: Literal["balanced"] | None = None
    whiten: Annotated[float, Field(ge=0, le=1)] | None = None
    chosen_by: Literal["folds", "valid"] = "folds"

    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """One score; the seeds are not used."""
        found = task.features(encoder, layers=self.named_layers)
        by_fold, fitted, predictions = [], [], []
        for fold in task.folds:
            chosen, held_out = self, None
            if self.chosen_by == "valid" and len(fold.valid):
                chosen, held_out = self.chosen(task, found, fold.train, fold.valid), "the validation part"
            layer = chosen.fit(task, found, fold.fitted)
            layer = replace(layer, held_out=held_out or layer.held_out)
            logits = layer(found.pooled(layer.layer, self.pooling)[fold.test])
            by_fold.append([score_of(logits, found.y[fold.test])])
            fitted.append(layer)
            probabilities = probabilities_of(logits, multi_label=task.multi_label)
            predictions += predictions_of(task, fold, probabilities)
        details = {
            name: [getattr(layer, name) for layer in fitted] for name in ("c", "layer", "whiten", "held_out")
        }
        return [summarise(task, by_fold, protocol=self.name, details=details, predictions=predictions)]

    @property
    def named_layers(self) -> tuple[int, ...]:
        """The layers that the options name."""
        return () if isinstance(self.layers, str) else self.layers

    def check_encoder(self, encoder: ClipEncoder, task: EvaluationTask) -> None:
        """RecipeError where the encoder has not the layers."""
        check_layers(encoder, self.named_layers)

    def fit(self, task: EvaluationTask, found: Features, rows: NDArray[np.int64]) -> LogisticLayer:
        """The classifier of the clips in `rows`."""
        parts, held_out = inner_folds([task.clips[row] for row in rows])
        best, c, layer = self._choose(task, found, rows, parts)
        weight, bias = best.fit(c)
        return LogisticLayer(weight, bias, c, layer, best.whiten, held_out if best.inner else "nothing")

    def chosen(
        self, task: EvaluationTask, found: Features, rows: NDArray[np.int64], held: NDArray[np.int64]
    ) -> Logistic:
        """With the layer, penalty and whitening of which a classifier of `rows` has the lowest loss on `held`."""
        parts, tried = np.repeat([FITTED, 0], [len(rows), len(held)]), list[tuple[float, Logistic]]()
        for layer in self._candidates(found):
            for whiten in (0.0, HALF) if self.whiten is None else (self.whiten,):
                one = replace(self, layers="best" if layer is None else (layer,), whiten=whiten)
                best, c, _ = one._choose(task, found, np.concatenate([rows, held]), parts)
                tried.append((best.loss(c), replace(one, c=c)))
        return min(tried, key=lambda of: of[0])[1]

    def _choose(
        self, task: EvaluationTask, found: Features, rows: NDArray[np.int64], parts: NDArray[np.int64]
    ) -> tuple[_Candidate, float, int | None]:
        """The best features, penalty and layer, by the inner fold of each row."""

        def candidate(layer: int | None, whiten: float = self.whiten or 0.0) -> _Candidate:
            x = found.pooled(layer, self.pooling)[rows]
            x = x.double() if x.numel() <= MOST_DOUBLE else x
            y, folds = found.y[rows], torch.from_numpy(parts)
            return _Candidate.of(x, y, len(task.label_names), folds, whiten, self)

        layers = self._candidates(found)
        best, layer = candidate(layers[-1]), layers[-1]
        c = self.c or (best.best_c() if best.inner else 1.0)
        if len(layers) > 1 and best.inner:
            lowest = best.loss(c)
            for other in layers[:-1]:
                rival = candidate(other)
                if (loss := rival.loss(c)) < lowest:
                    best, layer, lowest = rival, other, loss
            c = self.c or (best.best_c() if layer != layers[-1] else c)
        if self.whiten is None and best.inner:
            rival = candidate(layer, HALF)
            its_c = self.c or rival.best_c()
            if rival.loss(its_c) < best.loss(c):
                best, c = rival, its_c
        return best, c, layer

    def _candidates(self, found: Features) -> Sequence[int | None]:
        """Layers to choose from, the last one last."""
        if not found.layers:
            return [None]
        chosen = sorted(found.layers) if isinstance(self.layers, str) else sorted(set(self.layers))
        return chosen[-1:] if self.layers == "last" else chosen


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A layer's features of the clips that are fitted, for all penalties."""

    standardise: Standardiser
    basis: Basis
    whiten: float
    whole: Regression
    inner: Sequence[tuple[Tensor, Tensor, Regression]]  # held-out coordinates, targets; fits of the others

    @classmethod
    def of(
        cls, x: Tensor, y: Tensor, num_classes: int, parts: Tensor, whiten: float, options: Logistic
    ) -> _Candidate:
        """From features (n, D), targets, and the inner fold (n,) of each clip."""
        known = parts == FITTED  # the others are as new to the features' scale as those of a test
        if not known.any():
            known = torch.ones_like(known)
        standardise, balanced = Standardiser.fit(x[known]), options.class_weights == "balanced"
        basis = Basis.of(standardise(x[known]), whiten)
        z = basis.z if known.all() else basis.coordinates(standardise(x))

        def regression(kept: Tensor, tol: float) -> Regression:
            return Regression(z[kept], y[kept], num_classes, balanced=balanced, tol=tol)

        inner = []
        for part in parts.unique()[parts.unique() != FITTED]:
            others, held = parts != part, parts == part
            if y.ndim == 1:  # a class whose clips are all held out says nothing of a penalty
                held &= torch.isin(y, y[others])
            if others.any() and held.any():
                inner.append((z[held], y[held], regression(others, INNER_TOL)))
        return cls(standardise, basis, whiten, regression(known, TOL), inner)

    def loss(self, c: float) -> float:
        """Sum over the clips that are held out, each once."""
        total = 0.0
        for z, y, others in self.inner:
            weight, bias = others.fit(c)
            total += float(losses_of((z @ weight.mT + bias)[None], y[None]).sum())
        return total

    def best_c(self) -> float:
        """The one of `CS` with the lowest loss; none is tried beyond one whose loss is much higher than another's."""
        losses: dict[float, float] = {}
        for c in CS:
            losses[c] = self.loss(c)
            if losses[c] > FAR_WORSE * min(losses.values()):
                break
        return min(losses, key=losses.__getitem__)

    def fit(self, c: float) -> tuple[Tensor, Tensor]:
        """Weight (C, D) and bias (C,) for features that are not standardised."""
        weight, bias = self.whole.fit(c)
        weight = self.basis.on_features(weight) / self.standardise.std
        return weight, bias - weight @ self.standardise.mean
