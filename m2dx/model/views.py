"""From a batch of audio or images to the two views: what the method sees, and the clean one of offline encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from m2dx.contract.components import Augmentation, Views, Waveforms
from m2dx.data.batches import seeded_uniform
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
    """Gives the method noisy and changed views, and offline encoders the clean one (M2D-X, III-B2, eq. 5)."""

    def __init__(
        self,
        logmel: LogMel,
        statistics: DataStatistics,
        *,
        noise_ratio: float,
        augmentations: Sequence[Augmentation] = (),
    ) -> None:
        super().__init__()
        self.logmel, self.statistics = logmel, statistics
        self.noise_ratio = noise_ratio
        self.augmentations = nn.ModuleList(augmentations).requires_grad_(False)

    def resolve(self, recipe: Recipe) -> None:
        """Takes over the statistics that have been measured."""
        self.statistics = DataStatistics.of(recipe)

    @torch.no_grad()
    def forward(self, batch: Batch, count: int = 1) -> tuple[list[Tensor], Views]:
        """`count` log-mels (B, 1, M, L) for the method, standardised, and the clean views."""
        with record_function("m2dx::logmel"):
            stats = self.statistics
            clean = self.logmel.crop(batch.inputs)  # (B, N) -> (B, 1, M, L)
            standard = (clean - stats.mean) / stats.std
            noise = None if batch.noise_wav is None else self.logmel.crop(batch.noise_wav)
            changing = count if self.augmentations else 1
            given = [self._given(batch, clean, standard, noise, number) for number in range(changing)]
            given += [standard] * (count - changing)
        waveforms = Waveforms(batch.inputs, self.logmel.sample_rate)
        return given, Views(waveforms, standard, batch.labels, batch.crops)

    def _given(
        self, batch: Batch, clean: Tensor, standard: Tensor, noise: Tensor | None, number: int
    ) -> Tensor:
        """View `number` for the method."""
        stats, wav = self.statistics, self._changed("waveform", batch.inputs, batch.seeds, number)
        if wav is not batch.inputs:
            clean = self.logmel.crop(wav)
            standard = (clean - stats.mean) / stats.std
        if noise is not None:
            means = {"mean": stats.mean, "noise_mean": stats.noise_mean}
            standard = mix_noise(clean, noise, ratio=self.noise_ratio, **means) / stats.std
        return self._changed("logmel", standard, batch.seeds, number)

    def _changed(self, what: str, x: Tensor, seeds: Tensor, number: int) -> Tensor:
        for place, augmentation in enumerate(self.augmentations):
            if augmentation.changes == what:
                # Seeds of its own, apart from what maskings draw from the clip's.
                drawn = (seeded_uniform(seeds, 2, use=2**16 + 64 * number + place) * 2**24).long()
                with torch.autocast(x.device.type, enabled=False):
                    x = augmentation(x, drawn[:, 0] << 24 | drawn[:, 1])
        return x


def at_rate(views: Views, sample_rate: int | None) -> Views:
    """The views with waveforms at another sampling rate (Hz), float32 whatever the autocast; None: as they are."""
    if sample_rate is None or views.waveforms is None or sample_rate == views.sample_rate:
        return views
    with torch.autocast(views.clean_wav.device.type, enabled=False):
        wav = resample(views.clean_wav.float(), views.sample_rate, sample_rate)
    return replace(views, waveforms=Waveforms(wav, sample_rate))


def tensors_of(views: Views) -> list[Tensor]:
    """The samples, log-mels and labels of the views."""
    wavs = [] if views.waveforms is None else [views.waveforms.samples]
    return [*wavs, views.clean_logmel, *views.labels.values()]


def standardised(images: Tensor, section: ImageSection) -> Tensor:
    """Standardised images (B, C, H, W) float32, from uint8 values or from floating-point ones in [0, 1].

    Statistics that the recipe's section leaves open change nothing.
    """
    values = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if section.mean is None or section.std is None:
        return values
    mean, std = (torch.tensor(x, device=images.device).view(-1, 1, 1) for x in (section.mean, section.std))
    return (values - mean) / std


class ImageViews(nn.Module):
    """Gives the method and offline encoders the standardised images of a batch. There is no noise, and no waveform."""

    def __init__(self, section: ImageSection) -> None:
        super().__init__()
        self.section = section

    def resolve(self, recipe: Recipe) -> None:
        """Takes over the statistics that have been measured."""
        assert recipe.image is not None
        self.section = recipe.image

    @torch.no_grad()
    def forward(self, batch: Batch, count: int = 1) -> tuple[list[Tensor], Views]:
        """The images (B, C, H, W), standardised, `count` times, and the views, which have no waveforms."""
        images = standardised(batch.inputs, self.section)
        return [images] * count, Views(None, images, batch.labels)
