"""MSM-MAE: reconstruct the masked patches of the spectrogram from the visible ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.profiler import record_function

from m2dx.contract.components import Backbone, Mask, MaskedModel, MaskedModelOutput, PatchGrid, ViTSize
from m2dx.model.losses import standardise
from m2dx.model.masking import gather_tokens, restore_order
from m2dx.model.patches import line_positions, patchify
from m2dx.model.vit import Encoder, Predictor, init_linear


class MSMMAE(MaskedModel):
    """Masked Spectrogram Modeling with masked autoencoders (MSM-MAE, section 3).

    For offline tasks, a linear layer of m2dx's own brings the decoder's features of the masked patches to the
    encoder's width; the papers do not join MSM-MAE with other tasks.

    Options:
        standardise_target: standardise the values of each patch; not done in the paper
        decoder_positions: 2d, of time and frequency, as in M2D's code; 1d, of the patch's number, as in MSM-MAE's
    """

    name = "msm_mae"
    predictor_sizes = {"embed_dim": 384, "depth": 4, "num_heads": 6}
    reconstructs = True

    def __init__(
        self,
        grid: PatchGrid,
        size: ViTSize,
        predictor: ViTSize,
        backbone: Callable[[PatchGrid, ViTSize], Backbone] = Encoder,
        with_tokens: bool = False,
        *,
        standardise_target: bool = False,
        decoder_positions: Literal["2d", "1d"] = "2d",
    ) -> None:
        super().__init__()
        self.grid, self.standardise_target = grid, standardise_target
        self.online = backbone(grid, size)
        self.predictor = Predictor(grid, predictor, input_dim=size.embed_dim, output_dim=grid.patch_values)
        if decoder_positions == "1d":
            self.predictor.pos_embed = line_positions(grid.num_patches, predictor.embed_dim)
        self.to_latent = nn.Linear(predictor.embed_dim, size.embed_dim) if with_tokens else None
        if self.to_latent is not None:
            init_linear(self.to_latent)

    def forward(self, logmel: Tensor, mask: Mask, *, with_tokens: bool = True) -> MaskedModelOutput:
        """Loss and features of a batch: logmel (B, 1, M, L), standardised."""
        with record_function("m2dx::encoder"):
            latent = self.online.encode(self.online.embed(logmel), mask.visible)  # (B, 1 + V, D)
        with record_function("m2dx::predictor"):
            features = self.predictor.features(latent, mask.restore)  # (B, P, width of the decoder)
            prediction = self.predictor.pred(features)  # (B, P, patch values)
        target = gather_tokens(patchify(logmel, self.grid.patch_size), mask.masked).float()
        if self.standardise_target:
            target = standardise(target)
        loss = (gather_tokens(prediction, mask.masked).float() - target).square().mean()
        h_hat = None
        if with_tokens and self.to_latent is not None:
            masked = self.to_latent(gather_tokens(features, mask.masked))
            h_hat = restore_order(latent[:, 1:], masked.to(latent.dtype), mask)
        return MaskedModelOutput(loss=loss, latent=latent, prediction=prediction, target=target, tokens=h_hat)
