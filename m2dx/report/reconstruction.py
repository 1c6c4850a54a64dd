"""What a method that reconstructs makes of the visible patches of a spectrogram (MSM-MAE, 4.5.1)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2dx.contract.components import Mask, MaskedModel, PatchGrid
from m2dx.model.build import evaluating
from m2dx.model.patches import patchify
from m2dx.model.vit import encoder_of


@torch.no_grad()
def reconstruct(model: MaskedModel, logmel: Tensor, is_masked: NDArray[np.bool_]) -> Tensor:
    """Standardised log-mels (B, 1, M, L) with the masked patches (F, T) as predicted, and the visible ones as they are.

    A model with `standardise_target` predicts patches without their mean and spread. They are taken from the input,
    as MAE's pictures do, so that there is less error than the model would make alone.
    """
    grid = encoder_of(model).grid
    masked = torch.from_numpy(is_masked).flatten().to(logmel.device)  # (P,)
    ids = masked.to(torch.uint8).argsort(stable=True).expand(len(logmel), -1)  # visible ones first
    with evaluating(model):
        more = {"others": (logmel,) * (model.num_views - 1)} if model.num_views > 1 else {}
        output = model(logmel, Mask(ids, int((~masked).sum())), with_tokens=False, **more)
    values = patchify(logmel, grid.patch_size).float()  # (B, P, patch values)
    predicted = output.prediction.float()
    if model.standardise_target:
        scale = (values.var(dim=-1, keepdim=True) + 1e-6).sqrt()  # undoes m2dx.model.losses.standardise
        predicted = predicted * scale + values.mean(dim=-1, keepdim=True)
    return unpatchify(torch.where(masked[:, None], predicted, values), grid)


def unpatchify(values: Tensor, grid: PatchGrid) -> Tensor:
    """The spectrograms (B, 1, M, L) of patches (B, F*T, mels*frames): the inverse of `patchify` for one channel."""
    placed: Tensor = values.reshape(-1, *grid.shape, *grid.patch_size)  # (B, F, T, mels, frames)
    return placed.transpose(2, 3).reshape(-1, 1, *grid.input_size)
