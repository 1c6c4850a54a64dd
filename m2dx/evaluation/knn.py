"""Nearest neighbours on frozen features: the quickest look at what an encoder learned."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from m2dx.contract.components import ClipEncoder, EvaluationTask, Evaluator, Pooling, Score
from m2dx.evaluation.features import Standardiser
from m2dx.evaluation.metrics import predictions_of, score_of, summarise


class Knn(Evaluator):
    """Vote of the nearest neighbours by cosine of the last layer's standardised features; accuracy, or mAP of votes.

    Neighbours are looked for in the training part; the validation part is not used, as nothing is tuned. Nothing is
    random either: values are per fold, and the interval of a single split is over its test clips.

    Options:
        k: neighbours that vote, weighted by similarity; at most the training clips.
        pooling: over time, the mean and the standard deviation, or one of mean and maximum.
    """

    name = "knn"
    needs_wav = False

    def __init__(self, *, k: PositiveInt = 5, pooling: Pooling = "mean_deviation") -> None:
        self.k, self.pooling = k, pooling

    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """One score; the seeds are not used."""
        found = task.features(encoder)
        x, targets = found.pooled(pooling=self.pooling), torch.from_numpy(task.targets())
        by_fold, predictions = [], []
        for fold in task.folds:
            standardise = Standardiser.fit(x[fold.train])
            train, test = (standardise(x[rows]) for rows in (fold.train, fold.test))
            votes = neighbour_votes(train, targets[fold.train], test, k=self.k)
            by_fold.append([score_of(votes, found.y[fold.test])])
            predictions += predictions_of(task, fold, votes)
        details = {"k": self.k, "pooling": self.pooling}
        return [summarise(task, by_fold, protocol=self.name, details=details, predictions=predictions)]


def neighbour_votes(train: Tensor, targets: Tensor, test: Tensor, *, k: int) -> Tensor:
    """Shares of the votes (m, C) for test features (m, D): multi-hot targets (n, C), weighted by similarity.

    A neighbour with no or negative similarity has a very small vote, so that there is always a winner.
    """
    from sklearn.neighbors import NearestNeighbors  # here, since scikit-learn takes over a second to import

    neighbours = NearestNeighbors(n_neighbors=min(k, len(train)), metric="cosine").fit(train.numpy())
    distances, rows = neighbours.kneighbors(test.numpy())  # (m, k)
    weights = torch.from_numpy(np.maximum(1.0 - distances, 1e-6)).float()
    weights /= weights.sum(1, keepdim=True)
    return (weights[:, :, None] * targets[torch.from_numpy(rows)]).sum(1).clamp_max(1)  # (m, k, C) -> (m, C)
