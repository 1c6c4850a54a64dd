"""An augmentation of the log-mel that the method is given, as a plugin of m2dx.

augmentations: [{name: spec_augment, bands: 1}]
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

import m2dx

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class SpecAugment(m2dx.Augmentation):
    """Bands of frequency and of time at the mean of the data (Park et al., arXiv:1904.08779), without warping.

    Options:
        bands: of each
        frequency: the largest share of the mels in a band
        time: the largest share of the frames in a band
    """

    name, changes = "spec_augment", "logmel"

    def __init__(self, *, bands: PositiveInt = 2, frequency: Share = 0.2, time: Share = 0.1) -> None:
        super().__init__()
        self.bands, self.shares = bands, (frequency, time)

    def forward(self, x: Tensor, seeds: Tensor) -> Tensor:
        draws, hidden = m2dx.seeded_uniform(seeds, 4 * self.bands).unflatten(1, (2, 2, self.bands, 1)), []
        for axis, share in enumerate(self.shares):
            size, (width, place) = x.shape[2 + axis], draws[:, axis].unbind(1)  # (B, bands, 1) each
            width = width * share * size
            at = torch.arange(size, device=x.device) - place * (size - width)
            hidden.append(((at >= 0) & (at < width)).any(dim=1))  # (B, size)
        return x.masked_fill((hidden[0][:, :, None] | hidden[1][:, None])[:, None], 0.0)


@m2dx.hookimpl
def augmentations() -> list[type]:
    return [SpecAugment]
