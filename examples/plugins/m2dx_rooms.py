"""Rooms as an augmentation of the waveform that the method hears, as a plugin of m2dx.

augmentations: [{name: room, decay_seconds: [0.2, 1.0]}]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

import m2dx


class Room(m2dx.Augmentation):
    """Each clip convolved with an impulse response, at the same level: recorded ones, or noise that decays.

    Options:
        path: folder of recorded impulse responses; without it they are noise after the direct sound
        seconds: length of a response
        decay_seconds: least and largest time in which the noise decays by 60 dB
        reverberation: level of the noise by that of the direct sound
    """

    name, changes = "room", "waveform"
    recorded: Tensor | None

    def __init__(
        self,
        sample_rate: int,
        *,
        path: Path | None = None,
        seconds: PositiveFloat = 0.5,
        decay_seconds: tuple[PositiveFloat, PositiveFloat] = (0.1, 0.8),
        reverberation: PositiveFloat = 0.05,
    ) -> None:
        super().__init__()
        self.decay_seconds, self.reverberation, self.length = (
            decay_seconds,
            reverberation,
            round(seconds * sample_rate),
        )
        self.register_buffer("time", torch.arange(self.length) / sample_rate, persistent=False)
        recorded = None
        if path is not None:
            files = m2dx.list_audio(path).readable
            if not files:
                raise m2dx.RecipeError(f"path must be a folder of impulse responses, but {path} has no audio")
            recorded = torch.stack(
                [self.direct_first(m2dx.read_wav(f, sample_rate=sample_rate)) for f in files]
            )
        self.register_buffer("recorded", recorded, persistent=False)  # (responses, length)

    def direct_first(self, response: np.ndarray) -> Tensor:
        """A response from its peak on, so that sounds stay in their place."""
        response = response[np.abs(response).argmax() :][: self.length]
        return torch.from_numpy(np.pad(response, (0, self.length - len(response))))

    def forward(self, x: Tensor, seeds: Tensor) -> Tensor:
        place = m2dx.seeded_uniform(seeds, 1)  # (B, 1)
        if self.recorded is not None:
            response = self.recorded[(place[:, 0] * len(self.recorded)).long()]
        else:
            shortest, longest = self.decay_seconds
            decay = 10.0 ** (-3.0 * self.time / (shortest + (longest - shortest) * place))  # (B, length)
            noise = m2dx.seeded_uniform(seeds, self.length, use=1) - 0.5
            response = torch.where(self.time == 0.0, 1.0, self.reverberation * noise * decay)
        size = x.shape[1] + self.length
        wet = torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(response, size), size)[:, : x.shape[1]]
        return wet * (x.norm(dim=1, keepdim=True) / wet.norm(dim=1, keepdim=True).clamp_min(1e-8))


@m2dx.hookimpl
def augmentations() -> list[type]:
    return [Room]
