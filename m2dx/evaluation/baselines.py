"""Encoders without learning that a score is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from m2dx.audio.logmel import LogMel
from m2dx.recipe.schema import AudioSection


class MeanLogMel(nn.Module):
    """Mean and standard deviation over time of the log-mel spectrogram, as clip features (B, 2 * M)."""

    def __init__(self, audio: AudioSection) -> None:
        super().__init__()
        self.sample_rate = audio.sample_rate
        self.frame_rate = audio.sample_rate / audio.hop_length
        self.embed_dim = 2 * audio.n_mels
        self.logmel = LogMel(**audio.model_dump(exclude={"crop_seconds"}))

    @torch.no_grad()
    def clip(self, wav: Tensor) -> Tensor:
        """Features (B, 2 * M), the means first, from wav (B, N)."""
        bands = self.logmel(wav)[:, 0]  # (B, 1, M, L) -> (B, M, L)
        return torch.cat([bands.mean(-1), bands.std(-1, correction=0)], dim=-1)
