"""Changes of the log-mel that the method is given: other clips behind it, and other voices."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from m2dx.contract.components import Augmentation
from m2dx.data.batches import seeded_uniform


class Mixup(Augmentation):
    """The clip before in the micro-batch as a soft background (BYOL-A, arXiv:2103.06695, II-B).

    What is mixed are the exponentials of standardised log-mels: powers to one over the deviation, so that a loud
    background covers less than it would in the air.

    Options:
        ratio: the background's largest share
    """

    name, changes, mixes_clips = "mixup", "logmel", True

    def __init__(self, *, ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, x: Tensor, seeds: Tensor) -> Tensor:
        share = self.ratio * seeded_uniform(seeds, 1)[..., None, None]  # (B, 1, 1, 1)
        return torch.logaddexp(x + (-share).log1p(), x.roll(1, dims=0) + share.clamp_min(1e-6).log())


class MelShift(Augmentation):
    """The clip moved along frequency, as a longer or shorter vocal tract or another instrument has it.

    A vocal tract length perturbation (Jaitly and Hinton, ICML workshop 2013), by one shift for all bands. Labels that
    name pitches are lost by it.

    Options:
        mels: the farthest shift, up or down; the band at the edge fills up
    """

    name, changes = "mel_shift", "logmel"

    def __init__(self, *, mels: PositiveInt = 6) -> None:
        super().__init__()
        self.mels = mels

    def forward(self, x: Tensor, seeds: Tensor) -> Tensor:
        size = x.shape[2]
        by = ((2 * seeded_uniform(seeds, 1) - 1) * self.mels).round().long()  # (B, 1)
        rows = (torch.arange(size, device=x.device) + by).clamp(0, size - 1)  # (B, M)
        return x.gather(2, rows[:, None, :, None].expand_as(x))
