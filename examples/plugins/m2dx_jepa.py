"""A method as a plugin: prediction of a momentum encoder's features, in the manner of JEPA (I-JEPA, 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

import m2dx
from m2dx.model.masking import gather_tokens, restore_order
from m2dx.model.vit import Predictor


class JEPA(m2dx.MaskedModel):
    """Regresses the features that a momentum encoder of all patches has at the masked ones.

    Options:
        beta: where the smooth L1 loss turns from squared to absolute, in units of the normalised features
    """

    name = "jepa"
    fitting_parts = {"online": "online encoder", "target": "target encoder"}

    def __init__(
        self,
        grid: m2dx.PatchGrid,
        size: m2dx.ViTSize,
        predictor: m2dx.ViTSize,
        backbone: Callable[[m2dx.PatchGrid, m2dx.ViTSize], m2dx.Backbone],
        *,
        beta: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        self.beta = beta
        self.online = backbone(grid, size)
        self.target = backbone(grid, size).requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())
        self.predictor = Predictor(grid, predictor, input_dim=size.embed_dim, output_dim=size.embed_dim)

    def forward(self, logmel: Tensor, mask: m2dx.Mask, *, with_tokens: bool = True) -> m2dx.MaskedModelOutput:
        latent = self.online.encode(self.online.embed(logmel), mask.visible)  # (B, 1 + V, D)
        prediction = gather_tokens(self.predictor(latent, mask.restore), mask.masked)  # (B, P - V, D)
        with torch.no_grad():
            features = self.target(logmel)[:, 1:]  # (B, 1 + P, D), class token first, -> (B, P, D)
            target = gather_tokens(features, mask.masked).float()
            target = F.layer_norm(target, target.shape[-1:])
        return m2dx.MaskedModelOutput(
            loss=F.smooth_l1_loss(prediction.float(), target, beta=self.beta),
            latent=latent,
            prediction=prediction,
            target=target,
            tokens=restore_order(latent[:, 1:], prediction.to(latent.dtype), mask) if with_tokens else None,
        )

    @torch.no_grad()
    def after_step(self, ema_decay: float) -> Mapping[str, float]:
        targets, onlines = list(self.target.parameters()), list(self.online.parameters())
        torch._foreach_lerp_(targets, onlines, 1.0 - ema_decay)
        return {"ema_decay": ema_decay}

    def complete_start(self, missing: Sequence[str]) -> Mapping[str, str]:
        if "target" not in missing:
            return {}
        self.target.load_state_dict(self.online.state_dict())
        return {"target": "a copy of the online one"}


@m2dx.hookimpl
def methods() -> list[type]:
    return [JEPA]
