"""The core's losses. Each takes a prediction and a target of one shape and gives a scalar, in float32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from m2dx.contract.components import Loss


def standardise(vectors: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Vectors with zero mean and unit variance over their width, or other dimensions, in float32 (M2D-X, III-A1).

    The variance is the unbiased one with 1e-6 added, as in the published code.
    """
    vectors = vectors.float()
    mean, var = vectors.mean(dim=dim, keepdim=True), vectors.var(dim=dim, keepdim=True)
    return (vectors - mean) / (var + 1e-6).sqrt()


class NormMSE(Loss):
    """Mean squared error of l2-normalised vectors, 2 - 2 cos, averaged over them (M2D-X, eq. 2).

    A clip's row of NaN (not labelled) adds zero, as in `CrossEntropy`.

    Options:
        standardise_target: standardise each target vector first, as the published code does for offline tasks too
    """

    name = "norm_mse"

    def __init__(self, *, standardise_target: bool = True) -> None:
        super().__init__()
        self.standardise_target = standardise_target

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        wanted = standardise(target) if self.standardise_target else target.float()
        wanted = _as_predicted_where_unlabelled(target, wanted, prediction.float())
        cosine = F.normalize(prediction.float(), dim=-1) * F.normalize(wanted, dim=-1)
        return 2.0 - 2.0 * cosine.sum(dim=-1).mean()


class MSE(Loss):
    """Mean squared error over all values. A clip's row of NaN (not labelled) adds zero, as in `CrossEntropy`."""

    name = "mse"

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        prediction = prediction.float()
        return F.mse_loss(prediction, _as_predicted_where_unlabelled(target, target.float(), prediction))


def _as_predicted_where_unlabelled(target: Tensor, wanted: Tensor, prediction: Tensor) -> Tensor:
    """What is wanted, but what was predicted where a target of clips (B, C) is NaN; in one of frames NaN is a fault."""
    if target.dim() != 2:
        return wanted
    return wanted.where(target.isfinite().all(dim=-1, keepdim=True), prediction.detach())


class CrossEntropy(Loss):
    """Cross-entropy of logits with labels (M2D-X, III-B4 i).

    A row of several labels counts as an equal share of each. A row of NaN (not labelled) adds zero; the sum is
    divided by all rows, so that a batch may be split over processes and accumulation steps without a change.
    """

    name = "cross_entropy"

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        known = target.isfinite().all(dim=-1)  # (B,) or (B, S)
        shares = target.nan_to_num(0.0).float()
        shares = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1.0)
        loss = -(shares * prediction.float().log_softmax(dim=-1)).sum(dim=-1)
        return (loss * known).mean()


class BCE(Loss):
    """Binary cross-entropy of logits with multi-hot labels, averaged over classes (M2D-X, IV-C).

    A row of NaN (not labelled) adds zero; the sum is divided by all rows, as in `CrossEntropy`.
    """

    name = "bce"

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        known = target.isfinite().all(dim=-1)  # (B,) or (B, S)
        loss = F.binary_cross_entropy_with_logits(
            prediction.float(), target.nan_to_num(0.0).float(), reduction="none"
        ).mean(dim=-1)
        return (loss * known).mean()
