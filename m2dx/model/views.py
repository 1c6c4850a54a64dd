"""From a batch of audio or images to the two views: what the method sees, and the clean one of offline encoders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from m2dx.contract.components import Views, Waveforms
from m2dx.data.logmel import LogMel
from m2dx.data.noise import mix_noise
from m2dx.data.resampling import resample

if TYPE_CHECKING:
    from m2dx.data.crops import Batch
    from m2dx.recipe.schema import ImageSection, Recipe


@dataclass(frozen=True)
class DataStatistics:
    """Statistics of log-mel spectrograms that they are standardised and mixed with."""

    mean: float  # of the pre-training data
    std: float
    noise_mean: float = 0.0  # of the background noise

    @classmethod
    def of(cls, recipe: Recipe) -> DataStatistics:
        """Those of a recipe on audio; what it leaves open, until it is measured, changes nothing."""
        mean, std = recipe.data.mean, recipe.data.std
        noise_mean = None if recipe.noise is None else recipe.noise.mean
        return cls(mean or 0.0, 1.0 if std is None else std, noise_mean or 0.0)


class ViewMaker(nn.Module):
    """Gives the method the noisy view and offline encoders the clean one (M2D-X, III-B2, eq. 5)."""

    def __init__(self, logmel: LogMel, statistics: DataStatistics, *, noise_ratio: float) -> None:
        super().__init__()
        self.logmel, self.statistics = logmel, statistics
        self.noise_ratio = noise_ratio

    @torch.no_grad()
    def forward(self, batch: Batch) -> tuple[Tensor, Views]:
        """The noisy log-mel (B, 1, M, L), standardised, and the clean views."""
        with record_function("m2dx::logmel"):
            stats = self.statistics
            clean = self.logmel.crop(batch.inputs)  # (B, N) -> (B, 1, M, L)
            noisy = standard = (clean - stats.mean) / stats.std
            if batch.noise_wav is not None:
                noise = self.logmel.crop(batch.noise_wav)
                mixed = mix_noise(
                    clean, noise, ratio=self.noise_ratio, mean=stats.mean, noise_mean=stats.noise_mean
                )
                noisy = mixed / stats.std
        views = Views(
            waveforms=Waveforms(batch.inputs, self.logmel.sample_rate),
            clean_logmel=standard,
            labels=batch.labels,
            crops=batch.crops,
        )
        return noisy, views


def at_rate(views: Views, sample_rate: int | None) -> Views:
    """The views with waveforms at another sampling rate (Hz), float32 whatever the autocast; None: as they are."""
    if sample_rate is None or views.waveforms is None or sample_rate == views.sample_rate:
        return views
    with torch.autocast(views.clean_wav.device.type, enabled=False):
        wav = resample(views.clean_wav.float(), views.sample_rate, sample_rate)
    return replace(views, waveforms=Waveforms(wav, sample_rate))


def standardised(images: Tensor, section: ImageSection) -> Tensor:
    """Standardised images (B, C, H, W) float32, from uint8 values or from floating-point ones in [0, 1].

    Statistics that the recipe's section leaves open change nothing.
    """
    values = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if section.mean is None or section.std is None:
        return values
    mean, std = (torch.tensor(of, device=images.device).view(-1, 1, 1) for of in (section.mean, section.std))
    return (values - mean) / std


class ImageViews(nn.Module):
    """Gives the method and offline encoders the standardised images of a batch. There is no noise, and no waveform."""

    def __init__(self, section: ImageSection) -> None:
        super().__init__()
        self.section = section

    @torch.no_grad()
    def forward(self, batch: Batch) -> tuple[Tensor, Views]:
        """The images (B, C, H, W), standardised, and the views, which have no waveforms."""
        images = standardised(batch.inputs, self.section)
        return images, Views(None, images, batch.labels)
