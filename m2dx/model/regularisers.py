"""The core's regularisers: terms of the loss on the features themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from m2dx.contract.components import MaskedModelOutput, Regulariser, TaskShapes


def clip_vectors(output: MaskedModelOutput) -> Tensor:
    """(B, D), the mean over each clip's visible patches, in float32 whatever the precision of training."""
    return output.latent[:, 1:].float().mean(dim=1)  # (B, 1 + V, D), class token first


class VICReg(Regulariser):
    """Variance and covariance of clip vectors over the micro-batch (Bardes et al., arXiv:2105.04906, eq. 1 to 4).

    Options:
        covariance: weight of the covariance term beside the variance term, whose weight is 1
        deviation: standard deviation of each channel above which the variance term is 0
    """

    name = "vicreg"
    needs_tokens = False

    def __init__(
        self, shapes: TaskShapes, *, covariance: NonNegativeFloat = 0.04, deviation: PositiveFloat = 1.0
    ) -> None:
        super().__init__(shapes)
        self.covariance, self.deviation = covariance, deviation

    def forward(self, output: MaskedModelOutput, target: Tensor | None) -> Tensor:
        x = clip_vectors(output)
        x = x - x.mean(dim=0)
        with torch.autocast(x.device.type, enabled=False):
            covariance = x.mT @ x / max(len(x) - 1, 1)  # (D, D)
        spread = (covariance.diagonal() + 1e-4).sqrt()
        off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
        return F.relu(self.deviation - spread).mean() + self.covariance * off_diagonal / x.shape[1]
