"""From images to the views: M2D and offline encoders see the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from m2dx.components import Views

if TYPE_CHECKING:
    from m2dx.audio.crops import Batch
    from m2dx.recipe.schema import ImageSection


@dataclass(frozen=True)
class ImageStatistics:
    """Mean and standard deviation of each channel, of values in [0, 1], by which images are standardised."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, section: ImageSection) -> ImageStatistics:
        """The statistics of a resolved recipe's section."""
        assert section.mean is not None and section.std is not None
        return cls(section.mean, section.std)

    def __post_init__(self) -> None:
        if not all(std > 0 for std in self.std):
            raise ValueError(f"the standard deviation of each channel must be positive, but is {self.std}")


def standardised(images: Tensor, statistics: ImageStatistics) -> Tensor:
    """Standardised images (B, C, H, W) float32, from uint8 values or from floating-point ones in [0, 1]."""
    values = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    mean = torch.tensor(statistics.mean, device=images.device).view(-1, 1, 1)
    return (values - mean) / torch.tensor(statistics.std, device=images.device).view(-1, 1, 1)


class ImageViews(nn.Module):
    """Gives M2D and offline encoders the standardised images of a batch. There is no noise, and no waveform."""

    def __init__(self, statistics: ImageStatistics) -> None:
        super().__init__()
        self.statistics = statistics

    @torch.no_grad()
    def forward(self, batch: Batch) -> tuple[Tensor, Views]:
        """The images (B, C, H, W), standardised, and the views, whose `clean_wav` is empty."""
        assert batch.images is not None
        images = standardised(batch.images, self.statistics)
        return images, Views(clean_wav=batch.wav, sample_rate=0, clean_logmel=images, labels=batch.labels)
