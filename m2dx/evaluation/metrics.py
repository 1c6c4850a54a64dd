"""Accuracy, mean average precision, and scores with their confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from m2dx.contract.components import EvaluationTask, Fold, Prediction, Score


def accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Share of clips whose highest score (n, C) is at their class number (n,)."""
    return float((scores.argmax(1) == labels).mean())


def mean_average_precision(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Mean over classes of the average precision, from scores and multi-hot targets (n, C).

    Classes without positives are left out, as their average precision is not defined.
    """
    # Here, since scikit-learn takes over a second to import, and every command imports the evaluators.
    from sklearn.metrics import average_precision_score

    present = targets.sum(0) > 0
    if not present.any():
        raise ValueError("mean average precision needs a class with positives")
    return float(average_precision_score(targets[:, present], scores[:, present], average="macro"))


def score_of(scores: ArrayLike, y: Tensor) -> float:
    """mAP for multi-hot targets (n, C), accuracy for class numbers (n,)."""
    values, truth = np.asarray(scores), y.cpu().numpy()
    return mean_average_precision(values, truth) if truth.ndim == 2 else accuracy(values, truth)


def losses_of(logits: Tensor, y: Tensor) -> Tensor:
    """Cross entropy for class numbers (R, B), binary cross entropy for multi-hot targets (R, B, C); by clip (R, B)."""
    if y.ndim == logits.ndim:
        return F.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(-1)
    return F.cross_entropy(logits.mT, y, reduction="none")


def half_width_95(values: Sequence[float]) -> float | None:
    """Half width of the 95 % confidence interval of the mean (Student's t); None for a single value."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # here, since it is slow to import

    return float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))


def probabilities_of(logits: Tensor, *, multi_label: bool) -> Tensor:
    """Probabilities of classes from logits, both (n, C): of each by itself if `multi_label`, else they sum to 1."""
    return logits.sigmoid() if multi_label else logits.softmax(1)


def predictions_of(task: EvaluationTask, fold: Fold, probabilities: Tensor) -> list[Prediction]:
    """What a classifier says of a fold's test clips: the class with the highest of its probabilities (m, C)."""
    best = zip(fold.test.tolist(), probabilities.argmax(1).tolist(), probabilities.tolist(), strict=True)
    return [Prediction(task.clips[row], task.label_names[i], p[i], tuple(p)) for row, i, p in best]


def summarise(
    task: EvaluationTask,
    by_run: ArrayLike,
    *,
    protocol: str,
    details: Mapping[str, object] | None = None,
    predictions: Sequence[Prediction] = (),
) -> Score:
    """A score from values (folds, seeds).

    With several seeds there is one value per seed, the mean over the folds, so that the interval says how far another
    seed may be from it; with one seed (or a protocol without randomness) there is one value per fold.
    """
    table, targets = np.asarray(by_run, dtype=float), task.targets()
    values = tuple(map(float, table.mean(0) if table.shape[1] > 1 else table[:, 0]))
    facts: dict[str, object] = {
        "classes": len(task.label_names),
        "folds": len(task.folds),
        "classifiers": table.shape[1],  # of each fold
        "clips": len(task.clips),
        "bad_clips": len(task.bad),
        "unit_seconds": task.unit_seconds,
        "warnings": list(task.warnings),
    }
    if task.multi_label:
        facts["classes_left_out"] = [int((targets[fold.test].sum(0) == 0).sum()) for fold in task.folds]
    return Score(
        task=task.name,
        metric=task.metric,
        mean=float(np.mean(values)),
        ci95=half_width_95(values),
        values=values,
        protocol=protocol,
        details={**facts, **(details or {})},
        predictions=tuple(predictions),
    )
