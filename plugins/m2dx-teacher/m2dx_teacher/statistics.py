"""What a clip's log-mel spectrogram is on the average, as a training signal that needs no weights."""

import torch
from pydantic import PositiveInt
from torch import Tensor

import m2dx


class LogMelStatistics(m2dx.OfflineEncoder):
    """Mean and standard deviation over time of each mel band of the clean log-mel, (B, 2 M).

    The log-mel is the recipe's, standardised by the mean and standard deviation of the pre-training data. A task on it
    keeps level, spectrum and loudness changes of a clip, which masked prediction alone may forget.

    Options:
        n_mels: M, as in the recipe's `audio.n_mels`
    """

    name = "log_mel_statistics"

    def __init__(self, *, n_mels: PositiveInt = 80) -> None:
        super().__init__()
        self.n_mels, self.embed_dim = n_mels, 2 * n_mels

    def forward(self, views: m2dx.Views) -> Tensor:
        logmel = views.clean_logmel.float()[:, 0]  # (B, 1, M, L) -> (B, M, L)
        if logmel.shape[1] != self.n_mels:
            raise m2dx.RecipeError(
                f"n_mels must be the recipe's audio.n_mels, {logmel.shape[1]}, but is {self.n_mels}"
            )
        return torch.cat([logmel.mean(2), logmel.std(2, correction=0)], dim=1)
