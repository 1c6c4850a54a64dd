"""A method of two views as a plugin of m2dx: predict what a momentum encoder makes of the clip, changed in another way.

model: {method: {name: two_views, clip_share: 0.5}}
augmentations: [{name: gain}, {name: mixup}]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import m2dx
from m2dx.model.losses import standardise
from m2dx.model.masking import gather_tokens, restore_order


class TwoViews(m2dx.M2D):
    """M2D whose target network sees all patches of another view, and a term on whole clips, as BYOL-A has it.

    Without augmentations the other view is the clean clip: with noise, it learns to denoise its targets.

    Options:
        clip_share: share of the loss that compares the means over a clip's patches (BYOL-A, arXiv:2103.06695)
    """

    name = "two_views"
    num_views = 2

    def __init__(
        self,
        grid: m2dx.PatchGrid,
        size: m2dx.ViTSize,
        predictor: m2dx.ViTSize,
        backbone: Callable[[m2dx.PatchGrid, m2dx.ViTSize], m2dx.Backbone],
        *,
        clip_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5,
    ) -> None:
        super().__init__(grid, size, predictor, backbone, target_init="online")
        self.clip_share = clip_share

    def forward(
        self, logmel: Tensor, mask: m2dx.Mask, *, with_tokens: bool = True, others: tuple[Tensor, ...] = ()
    ) -> m2dx.MaskedModelOutput:
        latent = self.online.encode(self.online.embed(logmel), mask.visible)  # (B, 1 + V, D)
        predicted = self.predictor(latent, mask.restore)  # (B, P, D)
        prediction = gather_tokens(predicted, mask.masked)  # (B, P - V, D)
        with torch.no_grad():
            (other,) = others
            features = self.online.encode(self.online.embed(other), trunk=self.target)
            features = standardise(features[:, 1:])  # (B, 1 + P, D), class token first, -> (B, P, D)
            target = gather_tokens(features, mask.masked)
            whole = features.mean(dim=1).repeat_interleave(len(predicted) // len(features), dim=0)  # per mask
        of_patches, of_clips = self.loss(prediction, target), self.loss(predicted.mean(dim=1), whole)
        return m2dx.MaskedModelOutput(
            loss=(1.0 - self.clip_share) * of_patches + self.clip_share * of_clips,
            latent=latent,
            prediction=prediction,
            target=target,
            tokens=restore_order(latent[:, 1:], prediction.to(latent.dtype), mask) if with_tokens else None,
        )


@m2dx.hookimpl
def methods() -> list[type]:
    return [TwoViews]
