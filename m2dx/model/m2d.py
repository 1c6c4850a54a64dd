"""Masked Modeling Duo: predict, from the visible patches, what a momentum target makes of the masked ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.profiler import record_function

from m2dx.contract.components import Backbone, Mask, MaskedModel, MaskedModelOutput, PatchGrid, ViTSize
from m2dx.model.losses import MSE, NormMSE, standardise
from m2dx.model.masking import gather_tokens, restore_order
from m2dx.model.vit import Encoder, Predictor

_CHANNEL = (0, 1)  # dimensions of (B, K, D) over which each channel has a mean and a variance


class M2D(MaskedModel):
    """Masked Modeling Duo (M2D-X, III-A).

    As in the published code, the target network is the transformer alone: it takes the online network's patch
    embedding, positions and class token (without gradient), and drops the class token from its output.

    Options:
        target_init: the target network starts from its own random weights, as published, or from the online ones
        loss: eq. (2), or plain mean squared error
        standardise_target: standardise the target of each patch over its channels, as published; or each channel over
            the patches of a micro-batch, which takes from it what is the same for all sounds
        target_layers: the target network's last layer, as published, or the mean of all (data2vec, Baevski et al.,
            2022, section 3.3), each with its channels standardised over the patches of a micro-batch
    """

    name = "m2d"
    fitting_parts = {"online": "online encoder", "target": "target network"}
    target_sees_all: ClassVar[bool] = False  # or the masked patches alone

    def __init__(
        self,
        grid: PatchGrid,
        size: ViTSize,
        predictor: ViTSize,
        backbone: Callable[[PatchGrid, ViTSize], Backbone] = Encoder,
        *,
        target_init: Literal["random", "online"] = "random",
        loss: Literal["norm_mse", "mse"] = "norm_mse",
        standardise_target: bool | Literal["channel"] = True,
        target_layers: Literal["last", "mean"] = "last",
    ) -> None:
        super().__init__()
        plain = -1 if standardise_target else None
        self.standardised_over = _CHANNEL if standardise_target == "channel" else plain
        self.target_layers = target_layers
        self.online = backbone(grid, size)
        self.target = self.online.make_trunk()
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
        ids = None if self.target_sees_all else mask.masked
        if self.target_layers == "mean":
            layers = self.online.layers(tokens, ids, trunk=self.target)  # each (B, 1 + K, D)
            encoded = torch.stack([standardise(layer[:, 1:], _CHANNEL) for layer in layers]).mean(0)
        else:
            encoded = self.online.encode(tokens, ids, trunk=self.target)[:, 1:]  # (B, K, D)
        if self.target_sees_all:
            encoded = gather_tokens(encoded, mask.masked)
        over = self.standardised_over
        return encoded.float() if over is None else standardise(encoded, over)

    def after_step(self, ema_decay: float) -> Mapping[str, float]:
        self.update_target(ema_decay)
        return {"ema_decay": ema_decay}

    def complete_start(self, missing: Sequence[str]) -> Mapping[str, str]:
        """Next to a trained encoder, a random target would undo what it knows."""
        if "target" not in missing:
            return {}
        self.target.load_state_dict(self.online.trunk.state_dict())
        return {"target": "a copy of the online one"}

    def update_target(self, decay: float) -> None:
        """One step of the moving average: target <- decay x target + (1 - decay) x online (M2D-X, eq. 3)."""
        update = get_ema_multi_avg_fn(decay)  # of all in one pass
        update(list(self.target.parameters()), list(self.online.trunk.parameters()), 0)


class M2DAllPatches(M2D):
    """M2D's conventional variant, whose target network sees all patches (M2D-X, IV-B, tables III and IV)."""

    name = "m2d_all_patches"
    target_sees_all = True
