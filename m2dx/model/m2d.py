"""Masked Modeling Duo: predict, from the visible patches, what a momentum target makes of the masked ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from m2dx.model.losses import MSE, NormMSE, standardise
from m2dx.model.masking import Mask, gather_tokens, restore_order
from m2dx.model.patches import PatchGrid
from m2dx.model.vit import Encoder, Predictor, Trunk, ViTSize


@dataclass(frozen=True)
class MaskedModelOutput:
    """What one forward pass of M2D or MSM-MAE gives."""

    loss: Tensor  # scalar
    latent: Tensor  # (B, 1 + V, D), the online encoder's output on visible patches, class token first
    prediction: Tensor  # M2D: (B, P - V, D), masked patches; MSM-MAE: (B, P, patch values), all patches
    target: Tensor  # what the prediction is compared with, masked patches only, standardised where asked
    tokens: Tensor | None  # (B, P, D), h-hat in frequency-major order (M2D-X, III-B1); None: not asked for


class M2D(nn.Module):
    """Masked Modeling Duo (M2D-X, III-A).

    As in the published code, the target network is the transformer alone: it takes the online network's patch
    embedding, positions and class token (without gradient), and drops the class token from its output.
    """

    def __init__(
        self,
        grid: PatchGrid,
        size: ViTSize,
        predictor: ViTSize,
        *,
        target_input: Literal["masked", "all"] = "masked",
        target_init: Literal["random", "online"] = "random",
        loss: Literal["norm_mse", "mse"] = "norm_mse",
        standardise_target: bool = True,
    ) -> None:
        super().__init__()
        self.target_input, self.standardise_target = target_input, standardise_target
        self.online = Encoder(grid, size)
        self.target = Trunk(size)
        self.predictor = Predictor(grid, predictor, input_dim=size.embed_dim, output_dim=size.embed_dim)
        self.loss: nn.Module = NormMSE(standardise_target=False) if loss == "norm_mse" else MSE()
        if target_init == "online":
            self.target.load_state_dict(self.online.trunk.state_dict())
        self.target.requires_grad_(False)

    def forward(self, logmel: Tensor, mask: Mask, *, with_tokens: bool = True) -> MaskedModelOutput:
        """Loss and features of a batch: logmel (B, 1, M, L), standardised (and noisy, where noise is mixed in)."""
        with record_function("m2dx::encoder"):
            tokens = self.online.embed(logmel)  # (B, F*T, D)
            latent = self.online.encode(tokens, mask.visible)  # (B, 1 + V, D)
        with record_function("m2dx::target"):
            target = self.encode_target(tokens, mask)  # (B, P - V, D)
        with record_function("m2dx::predictor"):
            features = self.predictor.features(latent, mask.restore)  # (B, P, width of the predictor)
            prediction = self.predictor.pred(gather_tokens(features, mask.masked))  # (B, P - V, D)
        return MaskedModelOutput(
            loss=self.loss(prediction, target),
            latent=latent,
            prediction=prediction,
            target=target,
            tokens=restore_order(latent[:, 1:], prediction.to(latent.dtype), mask) if with_tokens else None,
        )

    @torch.no_grad()
    def encode_target(self, tokens: Tensor, mask: Mask) -> Tensor:
        """The training signal (B, P - V, D) from embedded patches (B, P, D), without gradient."""
        if self.target_input == "masked":
            tokens = gather_tokens(tokens, mask.masked)
        encoded = self.target(self.online.with_class_token(tokens))[:, 1:]
        if self.target_input == "all":
            encoded = gather_tokens(encoded, mask.masked)
        return standardise(encoded) if self.standardise_target else encoded.float()

    def target_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs (target parameter, online parameter) that the moving average joins."""
        yield from zip(self.target.parameters(), self.online.trunk.parameters(), strict=True)

    @torch.no_grad()
    def update_target(self, decay: float) -> None:
        """One step of the moving average: target <- decay x target + (1 - decay) x online (M2D-X, eq. 3)."""
        targets, onlines = zip(*self.target_pairs(), strict=True)
        torch._foreach_lerp_(list(targets), list(onlines), 1.0 - decay)
