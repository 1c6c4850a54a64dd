"""Logistic regression with an L2 penalty: softmax over classes, or a sigmoid for each; always the same optimum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.nn import functional as F

NEVER = -20.0  # logit of a class without a training clip
SMALLEST = 1e-12  # eigenvalues of a covariance, as a share of the largest, below which they are rounding
MOST_DOUBLE, ROWS = 2**27, 4096
"""Values of features that are computed with in float64, at most; of more, the covariance is, some rows at a time."""
MOST_STEPS = 500
STEPS_REMEMBERED = 10
SMALL = 2**25  # multiplications of a step, of which one thread does all


@cache
def thread_pools() -> ThreadpoolController:
    """Those of SciPy and PyTorch."""
    import scipy.optimize  # noqa: F401 - a pool is seen once it is loaded

    return ThreadpoolController()


@contextmanager
def few_threads(products: int) -> Iterator[None]:
    """Minimises with one thread of SciPy, and where a step has few `products` with one of PyTorch.

    Threads spin while they wait. Where two pools take turns a thousand times a second, each keeps the other from the
    cores, and where another program has one of these, each short product waits for it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if products < SMALL else before)
    try:
        with thread_pools().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class Basis:
    """Features as coordinates on the axes of their covariance.

    Lengths, and so the penalty, are the same there, or nearer to each other by whitening.
    """

    z: Tensor  # (n, R), orthogonal columns, float64 unless there are very many clips; R is the rank
    factors: tuple[Tensor, ...]  # whose product is the axes, (R, D)

    @classmethod
    def of(cls, x: Tensor, whiten: float = 0.0) -> Basis:
        """Of standardised features (n, D).

        `whiten`: 0 leaves the coordinates their lengths, 1 makes all lengths the same, 0.5 their square roots; the sum
        of squares stays.
        """
        wide = len(x) < x.shape[1]
        x = x.double() if wide or x.numel() <= MOST_DOUBLE else x
        products = (part.double().mT @ part.double() for part in x.split(ROWS))
        values, vectors = torch.linalg.eigh(x @ x.mT if wide else sum(products))
        kept = values > SMALLEST * values[-1]
        vectors, lengths = vectors[:, kept], values[kept].sqrt()
        scales = lengths**-whiten
        scales *= lengths.norm() / (lengths * scales).norm()
        if not wide:
            return cls(x @ (vectors * scales).to(x.dtype), ((vectors * scales).mT,))
        return cls(vectors * lengths * scales, ((vectors * scales / lengths).mT, x))

    def coordinates(self, x: Tensor) -> Tensor:
        """Of other features (n, D): (n, R)."""
        return x.to(self.z.dtype) @ reduce(torch.matmul, self.factors).mT.to(self.z.dtype)

    def on_features(self, weight: Tensor) -> Tensor:
        """Weights of coordinates (C, R) as weights of the features (C, D)."""
        return reduce(torch.matmul, self.factors, weight.double())


class Regression:
    """Fits of the same clips with one penalty after the other, each from where the last one ended.

    Minimises C * sum of the clips' losses + |W|^2 / 2, as scikit-learn does: softmax for class numbers, the sigmoid of
    the second for two classes, and a sigmoid for each class for multi-hot targets. L-BFGS works on weights that are
    scaled by the diagonal of the Hessian, which is nearly diagonal on the axes of a `Basis`, so that few steps suffice.
    """

    def __init__(
        self, z: Tensor, y: Tensor, num_classes: int, *, balanced: bool = False, tol: float = 1e-4
    ) -> None:
        """Coordinates (n, R) and targets, (n,) or (n, num_classes).

        `balanced`: each class has the same weight in sum. `tol`: of the derivatives, in the scaled weights.
        """
        self.z = torch.cat([z, z.new_ones(len(z), 1)], dim=1)  # the last one is the bias's
        self.tol, self.bias = tol, z.new_full((num_classes,), NEVER)
        hot = (F.one_hot(y, num_classes) if y.ndim == 1 else y).to(z.dtype)
        share = hot.mean(0)
        self.bias[share == 1] = -NEVER
        self.classes = ((share > 0) & (share < 1)).nonzero().flatten()  # those that have weights
        self.softmax = y.ndim == 1 and len(self.classes) > 2
        if y.ndim == 1 and len(self.classes) == 2:
            self.bias[self.classes[0]], self.classes = 0.0, self.classes[1:]
        self.hot, share = hot[:, self.classes], share[self.classes]  # (n, K), (K,)
        self.importance = self.hot.new_ones(len(z), 1)  # (n, 1 or K)
        if balanced and self.softmax:
            self.importance = (self.hot / share).sum(1, keepdim=True) / len(share)
        elif balanced:
            self.importance = torch.where(self.hot > 0, 1 / share, 1 / (1 - share)) / 2
        self.w = z.new_zeros(self.z.shape[1], len(share))  # (R + 1, K)

    def fit(self, c: float) -> tuple[Tensor, Tensor]:
        """Weight (num_classes, R) and bias (num_classes,) with `c`, the inverse strength of the penalty."""
        weight, bias = self.w.new_zeros(len(self.bias), len(self.w) - 1), self.bias.clone()
        if len(self.classes):
            self._minimise(c)
            weight[self.classes], bias[self.classes] = self.w[:-1].mT, self.w[-1]
        return weight, bias

    def _minimise(self, c: float) -> None:
        from scipy.optimize import minimize  # here, since it is slow to import

        penalty = self.w.new_full((len(self.w), 1), 1 / c)
        penalty[-1] = 0.0
        p = self._probabilities(self.z @ self.w)
        curvature = self.z.square().mT @ (self.importance * p * (1 - p)) + penalty
        scale = curvature.clamp_min(1e-12).rsqrt()

        def value_and_slope(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            w = (torch.from_numpy(scaled).view_as(scale) * scale).to(self.z.dtype)
            logits = self.z @ w
            slope = self.z.mT @ (self.importance * (self._probabilities(logits) - self.hot)) + penalty * w
            value = (self.importance * self._losses(logits)).sum() + (penalty * w.square()).sum() / 2
            return float(value), (slope * scale).flatten().double().numpy()

        with few_threads(self.z.shape[0] * self.w.numel()):
            found = minimize(
                value_and_slope,
                (self.w / scale).flatten().double().numpy(),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": MOST_STEPS, "maxcor": STEPS_REMEMBERED, "gtol": self.tol, "ftol": 0.0},
            )
        self.w = (torch.from_numpy(found.x).view_as(scale) * scale).to(self.z.dtype)

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(1) if self.softmax else logits.sigmoid()

    def _losses(self, logits: Tensor) -> Tensor:
        """(n, 1) with softmax, else (n, K)."""
        if self.softmax:
            return logits.logsumexp(1, keepdim=True) - (logits * self.hot).sum(1, keepdim=True)
        return F.softplus(logits) - logits * self.hot
