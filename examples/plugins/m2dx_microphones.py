"""Microphones as augmentations of the waveform that the method hears, as a plugin of m2dx.

augmentations: [{name: gain, decibels: 10}, {name: band_limit}]
"""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor

import m2dx


class Gain(m2dx.Augmentation):
    """Each clip louder or softer, by as many decibels as are drawn for it.

    Options:
        decibels: the most, up or down
    """

    name, changes = "gain", "waveform"

    def __init__(self, *, decibels: PositiveFloat = 6.0) -> None:
        super().__init__()
        self.decibels = decibels

    def forward(self, x: Tensor, seeds: Tensor) -> Tensor:
        level = self.decibels * (2.0 * m2dx.seeded_uniform(seeds, 1) - 1.0)  # (B, 1)
        return x * 10.0 ** (level / 20.0)


class BandLimit(m2dx.Augmentation):
    """Softer below and above two random frequencies, as through another microphone.

    Options:
        lowest: largest frequency from which on sounds stay, Hz
        highest: least frequency up to which sounds stay, Hz
    """

    name, changes = "band_limit", "waveform"

    def __init__(
        self, sample_rate: int, *, lowest: PositiveFloat = 300.0, highest: PositiveFloat = 3400.0
    ) -> None:
        super().__init__()
        self.lowest, self.highest, self.nyquist = lowest, highest, sample_rate / 2

    def forward(self, x: Tensor, seeds: Tensor) -> Tensor:
        low, high = m2dx.seeded_uniform(seeds, 2).unsqueeze(-1).unbind(1)  # (B, 1) each
        frequency = torch.linspace(1.0, self.nyquist, x.shape[1] // 2 + 1, device=x.device)
        below = self.lowest * low / frequency
        above = frequency / (self.nyquist - (self.nyquist - self.highest) * high)
        gains = 1.0 / ((1.0 + below**4) * (1.0 + above**8)).sqrt()
        return torch.fft.irfft(torch.fft.rfft(x) * gains, x.shape[1])


@m2dx.hookimpl
def augmentations() -> list[type]:
    return [Gain, BandLimit]
