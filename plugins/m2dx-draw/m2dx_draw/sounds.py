"""Sounds for pictures, read from files, and sounds of log-mel spectrograms.

The phase, which a spectrogram lacks, is estimated by Griffin and Lim's method.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from m2dx.contract.errors import AudioError
from m2dx.data.logmel import LogMel
from m2dx.data.reading import read_wav

MEL_STEPS, PHASE_STEPS = 200, 64
MOMENTUM = 0.99
"""Of the fast method of Perraudin, Balazs and Sondergaard (2013): how far each step goes beyond the one before it."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A recording and what it is called in a picture."""

    name: str
    wav: Tensor  # (N,) samples at the rate of the model that it is for

    def __post_init__(self) -> None:
        if self.wav.ndim != 1 or not len(self.wav):
            raise ValueError(f"wav must be (N,) samples with N > 0, but is {tuple(self.wav.shape)}")


def read_sound(path: Path | str, sample_rate: int, *, start: float = 0.0) -> Sound:
    """A file from `start` (s) to its end, named after the file. AudioError, with the path, where it cannot be read."""
    path = Path(path)
    try:
        return Sound(path.name, torch.from_numpy(read_wav(path, start=start, sample_rate=sample_rate)))
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error


def griffin_lim(logmel: LogMel, mel_power: Tensor) -> Tensor:
    """Samples (L x hop_length,) whose mel power spectrogram is about `mel_power` (M, L); the same at each call."""
    mel_power = torch.cat([mel_power, mel_power[:, -1:]], dim=1)  # centred frames: one more than hops
    magnitude = mel_to_linear(mel_power, logmel.filters.cpu()).sqrt()
    samples, window = (mel_power.shape[1] - 1) * logmel.hop_length, logmel.window.cpu()
    sizes = logmel.n_fft, logmel.hop_length, logmel.win_length
    turns = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0))
    phase, before = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns), torch.zeros(())
    for _ in range(PHASE_STEPS):
        wav = torch.istft(magnitude * phase, *sizes, window, length=samples)
        found = torch.stft(wav, *sizes, window, return_complex=True)
        phase, before = found - MOMENTUM / (1 + MOMENTUM) * before, found
        phase = phase / phase.abs().clamp_min(1e-16)
    return torch.istft(magnitude * phase, *sizes, window, length=samples)


def mel_to_linear(mel_power: Tensor, filters: Tensor) -> Tensor:
    """A power spectrogram (n_fft/2+1, L), not negative, with about the mel power (M, L) under filters (n_fft/2+1, M).

    There are more bins than bands: of all solutions it is the one that multiplicative least-squares steps reach from
    each band's power spread over its bins.
    """
    weights = filters / filters.sum(dim=0).clamp_min(1e-12)
    linear = (weights @ mel_power).clamp_min(1e-12)
    wanted = filters @ mel_power
    for _ in range(MEL_STEPS):
        linear = linear * wanted / (filters @ (filters.mT @ linear)).clamp_min(1e-20)
    return linear
