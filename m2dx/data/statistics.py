"""Mean and standard deviation of the log-mel spectrograms, measured on crops as training sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from m2dx.contract.components import NoiseSource
from m2dx.contract.errors import AudioError
from m2dx.data.batches import Stream, seeded_generator
from m2dx.data.clips import ClipList
from m2dx.data.crops import BadFile, ShortClips, draw_noise, read_any_crop
from m2dx.data.loader import worker_loader
from m2dx.data.logmel import LogMel
from m2dx.data.pcm import float_samples

Progress = Callable[[int, int], None]
"""Called with the clips done and the clips in all."""
_Item = tuple[Tensor, list[BadFile]]
_BATCH = 32


@dataclass(frozen=True)
class Statistics:
    """Statistics of log-mel spectrograms over all mels and frames."""

    mean: float
    std: float
    clips: int  # crops that they were measured on
    bad: tuple[BadFile, ...]  # files that could not be used, each once


def measure_statistics(
    clips: ClipList,
    *,
    logmel: LogMel,
    crop_samples: int,
    seed: int,
    short_clips: ShortClips = "pad",
    max_clips: int = 10_000,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Statistics:
    """Statistics over one random crop each of at most `max_clips` random clips; the same under a seed.

    Short clips count with their padding, since training standardises it too. `logmel` must be on the device.
    Raises `AudioError` when nothing can be read, or all of it is the same (such as silence).
    """
    generator = seeded_generator(Stream.STATISTICS_ORDER, seed=seed)
    order = torch.randperm(len(clips), generator=generator)[:max_clips]
    crops = _ClipCrops(clips, order, crop_samples, logmel.sample_rate, short_clips, seed)
    return _measure(
        crops, len(order), of="the data", logmel=logmel, workers=workers, device=device, progress=progress
    )


def measure_noise(
    source: NoiseSource,
    *,
    logmel: LogMel,
    crop_samples: int,
    seed: int,
    draws: int = 1000,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Statistics:
    """Statistics over draws of a noise source, whose mean eq. (5) needs; the same under a seed.

    Raises `AudioError` as `measure_statistics` does, `PluginError` when the source breaks its contract.
    """
    crops, of = _NoiseDraws(source, crop_samples, seed), f"the noise source {source.name!r}"
    return _measure(crops, draws, of=of, logmel=logmel, workers=workers, device=device, progress=progress)


class _ClipCrops(Dataset[_Item]):
    def __init__(
        self,
        clips: ClipList,
        order: Tensor,
        crop_samples: int,
        sample_rate: int,
        short_clips: ShortClips,
        seed: int,
    ) -> None:
        self.clips, self.order, self.short_clips, self.seed = clips, order, short_clips, seed
        self.crop_samples, self.sample_rate = crop_samples, sample_rate

    def __getitem__(self, position: int) -> _Item:
        _, _, wav, bad = read_any_crop(
            self.clips,
            int(self.order[position]),
            crop_samples=self.crop_samples,
            sample_rate=self.sample_rate,
            short_clips=self.short_clips,
            generator=seeded_generator(Stream.STATISTICS_CROP, seed=self.seed, position=position),
        )
        return torch.from_numpy(float_samples(wav)), bad


class _NoiseDraws(Dataset[_Item]):
    def __init__(self, source: NoiseSource, crop_samples: int, seed: int) -> None:
        self.source, self.crop_samples, self.seed = source, crop_samples, seed

    def __getitem__(self, position: int) -> _Item:
        generator = seeded_generator(Stream.STATISTICS_NOISE, seed=self.seed, position=position)
        return draw_noise(self.source, self.crop_samples, generator), self.source.drain_bad()


def _collate(items: Sequence[_Item]) -> _Item:
    return torch.stack([wav for wav, _ in items]), [bad for _, found in items for bad in found]


@torch.no_grad()
def _measure(
    crops: Dataset[_Item],
    count: int,
    *,
    of: str,
    logmel: LogMel,
    workers: int | None,
    device: torch.device | str,
    progress: Progress | None,
) -> Statistics:
    batches = [range(begin, min(begin + _BATCH, count)) for begin in range(0, count, _BATCH)]
    total = torch.zeros(2, dtype=torch.float64)  # of the values, and of their squares
    values = done = 0
    bad: dict[str, str] = {}
    for wav, found in worker_loader(crops, batches, collate=_collate, workers=workers):
        spectrograms = logmel.crop(wav.to(device)).double().flatten()
        total += torch.stack([spectrograms.sum(), spectrograms.square().sum()]).cpu()
        values += spectrograms.numel()
        done += len(wav)
        for path, reason in found:
            bad.setdefault(path, reason)
        if progress is not None:
            progress(done, count)
    mean, mean_square = (total / values).tolist()
    variance = mean_square - mean**2
    if not math.isfinite(variance):
        raise AudioError(
            f"log-mel spectrograms of {of} must be finite, but their mean is {mean} over {done} clips"
        )
    if variance < 1e-6:
        raise AudioError(
            f"log-mel spectrograms of {of} must vary, but all values are {mean:.2f} in {done} clips; are they silent?"
        )
    return Statistics(mean=mean, std=math.sqrt(variance), clips=done, bad=tuple(bad.items()))
