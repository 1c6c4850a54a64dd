"""What is trained: a copy of the encoder with a classifier on its clip features."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from m2dx.encoder import AudioEncoder
from m2dx.evaluation.finetuning.augmentation import structured_patchout
from m2dx.model.masking import gather_tokens

HEAD_STD = 0.01
"""Of the linear layer's initial weights, in the published code."""


class Head(nn.Module):
    """Batch norm without affine parameters, then a linear layer: (B, D) -> (B, C), as in published fine-tuned files."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.linear = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=HEAD_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor, *, random: np.random.Generator | None = None) -> Tensor:
        """Logits in float32 whatever the autocast; nothing in it is random."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.linear(self.norm(features.float()))
        return logits


class FinetunedNetwork(nn.Module):
    """A trainable copy of an encoder and a `Head`: standardised log-mels (B, 1, M, L) -> logits (B, C).

    The head has the mean over time of the features by eq. (4), F*D wide; with patchout the mean of the patches'
    outputs, D wide, since eq. (4) needs all patches (M2D-X, IV-B). The class token's output is not in either.
    """

    def __init__(
        self,
        encoder: AudioEncoder,
        num_classes: int,
        *,
        patchout: float = 0.0,
        adjust_positions: bool = False,
        freeze_patch_embed: bool = False,
    ) -> None:
        """`adjust_positions`: audio longer than the model's input is not split, its positions are interpolated."""
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self.encoder.head = None
        self.encoder.long_clips = "interpolate" if adjust_positions else "split"
        self.encoder.encoder.patch_embed.requires_grad_(not freeze_patch_embed)
        self.patchout = patchout
        self.head = Head(encoder.encoder.size.embed_dim if patchout else encoder.embed_dim, num_classes)

    def forward(self, logmel: Tensor, *, random: np.random.Generator | None = None) -> Tensor:
        """Logits; patches are dropped where `random` is given and there is patchout."""
        if self.patchout:
            features = self.patch_mean(logmel, random=random)
        else:
            features = self.encoder.encode_logmel(logmel)[-1].mean(dim=1)  # (B, T, F*D) -> (B, F*D)
        logits: Tensor = self.head(features)
        return logits

    def patch_mean(self, logmel: Tensor, *, random: np.random.Generator | None = None) -> Tensor:
        """Mean output (B, D) of the patches that are left of those of (B, 1, M, L); without `random` of all."""
        vit = self.encoder.encoder
        outputs = []
        for chunk in self.encoder.chunks(logmel):
            tokens = vit.embed(chunk)  # (B, F*T, D)
            if random is not None:
                grid = vit.grid.shape[0], chunk.shape[-1] // vit.grid.patch_size[1]
                kept = structured_patchout(grid, self.patchout, len(tokens), random=random)
                tokens = gather_tokens(tokens, kept.to(tokens.device))  # (B, F*T, D) -> (B, V, D)
            outputs.append(vit.trunk(vit.with_class_token(tokens))[:, 1:])
        return torch.cat(outputs, dim=1).mean(dim=1)
