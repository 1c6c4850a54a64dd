"""Mean and standard deviation of the input, measured on random crops as training sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset

from m2dx.contract.components import NoiseSource
from m2dx.contract.errors import AudioError, ImageError
from m2dx.contract.progress import Progress
from m2dx.data.bad_files import BadFile
from m2dx.data.batches import Stream, seeded_generator
from m2dx.data.clips import ClipList
from m2dx.data.crops import AudioCrops, CropReader, draw_noise, read_any_crop
from m2dx.data.loader import batch_loader
from m2dx.data.logmel import LogMel
from m2dx.data.pcm import float_tensor, stack

_Item = tuple[Tensor, Sequence[BadFile]]
_BATCH = 32


@dataclass(frozen=True)
class Statistics:
    """Statistics of each channel: of log-mel spectrograms, which have one, or of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clips: int  # crops that they were measured on
    bad: tuple[BadFile, ...]  # files that could not be used, each once


def measure_audio(
    clips: ClipList,
    reader: AudioCrops,
    logmel: LogMel,
    *,
    seed: int,
    max_clips: int = 10_000,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Log-mel statistics over one random crop each of at most `max_clips` random draws; the same under a seed.

    Clips count as often as their data sets repeat them, whatever their weights in `sampling: weighted`. Short clips
    count with their padding, since training standardises it too. The device is that of `logmel`.
    Raises `AudioError` when nothing can be read, or all of it is the same (such as silence).
    """
    found = _measure(_clip_crops(clips, reader, seed, max_clips), _logmel_values(logmel), workers, progress)
    return _refuse_silence(found, "the data")


def measure_noise(
    source: NoiseSource,
    logmel: LogMel,
    *,
    crop_samples: int,
    seed: int,
    draws: int = 1000,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Log-mel statistics over draws of a noise source, whose mean eq. (5) needs; the same under a seed.

    Raises `AudioError` as `measure_audio` does, `PluginError` when the source breaks its contract.
    """
    noise = _Draws(partial(_noise, source, crop_samples, seed), draws)
    found = _measure(noise, _logmel_values(logmel), workers, progress)
    return _refuse_silence(found, f"the noise source {source.name!r}")


def measure_images(
    clips: ClipList,
    reader: CropReader,
    *,
    seed: int,
    max_clips: int,
    workers: int | None,
    progress: Progress | None = None,
) -> Statistics:
    """Statistics of the pixels over one random crop each of at most `max_clips` random images; the same under a seed.

    Raises `ImageError` when nothing can be read, or a channel is the same everywhere.
    """
    found = _measure(_clip_crops(clips, reader, seed, max_clips), _pixel_values, workers, progress)
    if min(found.std) < 1e-4:
        raise ImageError(f"images must vary in each channel, but their deviations are {list(found.std)}")
    return found


def _logmel_values(logmel: LogMel) -> Callable[[Tensor], Tensor]:
    def values(wav: Tensor) -> Tensor:
        found = logmel.crop(float_tensor(wav.to(logmel.window.device))).flatten()[None]
        return (found.cpu() if found.device.type == "mps" else found).double()  # mps has no float64

    return values


def _pixel_values(images: Tensor) -> Tensor:
    return images.double().div_(255).transpose(0, 1).flatten(1)  # (B, C, H, W) -> (C, B*H*W)


def _refuse_silence(found: Statistics, name: str) -> Statistics:
    """`AudioError` where there is nothing that log-mel spectrograms could be standardised by."""
    (mean,), (std,) = found.mean, found.std
    if not math.isfinite(std):
        raise AudioError(f"log-mels of {name} must be finite, but the mean of {found.clips} clips is {mean}")
    if std < 1e-3:
        same = f"all values are {mean:.2f} in {found.clips} clips"
        raise AudioError(f"log-mels of {name} must vary, but {same}; are they silent?")
    return found


class _Draws(Dataset[_Item]):
    """Inputs by their number, each with the files that could not be used for it."""

    def __init__(self, draw: Callable[[int], _Item], count: int) -> None:
        self.draw, self.count = draw, count

    def __getitem__(self, position: int) -> _Item:
        return self.draw(position)


def _clip_crops(clips: ClipList, reader: CropReader, seed: int, most: int) -> _Draws:
    """A crop each of some random draws of an epoch, in which a clip counts as often as its data set repeats it."""
    draws, generator = clips.draws, seeded_generator(Stream.STATISTICS_ORDER, seed=seed)
    order = draws[torch.randperm(len(draws), generator=generator)[:most]]
    return _Draws(partial(_crop, clips, reader, seed, order), len(order))


def _crop(clips: ClipList, reader: CropReader, seed: int, order: Tensor, position: int) -> _Item:
    generator = seeded_generator(Stream.STATISTICS_CROP, seed=seed, position=position)
    found = read_any_crop(clips, int(order[position]), reader, generator)
    return found.inputs, found.bad


def _noise(source: NoiseSource, crop_samples: int, seed: int, position: int) -> _Item:
    generator = seeded_generator(Stream.STATISTICS_NOISE, seed=seed, position=position)
    return draw_noise(source, crop_samples, generator), source.drain_bad()


def _collate(items: Sequence[_Item]) -> _Item:
    return stack([inputs for inputs, _ in items]), [bad for _, found in items for bad in found]


@torch.no_grad()
def _measure(
    crops: _Draws, values_of: Callable[[Tensor], Tensor], workers: int | None, progress: Progress | None
) -> Statistics:
    """The statistics of all crops; `values_of` gives (channels, values) float64 from a batch of them."""
    batches = [range(crops.count)[first : first + _BATCH] for first in range(0, crops.count, _BATCH)]
    total = torch.zeros(2, 1, dtype=torch.float64)  # of the values, and of their squares
    number, done, bad = 0, 0, dict[str, str]()
    for inputs, found in batch_loader(crops, batches, collate=_collate, workers=workers):
        values = values_of(inputs)
        total = total + torch.stack([values.sum(1), values.square().sum(1)]).cpu()
        number += values.shape[1]
        bad |= {path: reason for path, reason in found if path not in bad}
        done += len(inputs)
        if progress is not None:
            progress(done, crops.count, "clips")
    mean, mean_square = total / number
    std = (mean_square - mean.square()).clamp_min(0).sqrt()
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), crops.count, tuple(bad.items()))
