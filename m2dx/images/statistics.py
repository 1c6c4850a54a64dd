"""Mean and standard deviation of the channels, measured on crops as training sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from m2dx.audio.batches import Stream, seeded_generator
from m2dx.audio.clips import ClipList
from m2dx.audio.crops import BadFile
from m2dx.audio.loader import worker_loader
from m2dx.errors import ImageError
from m2dx.images.crops import read_any_image
from m2dx.recipe.schema import ImageSection

_BATCH = 32
_Item = tuple[Tensor, list[BadFile]]


@dataclass(frozen=True)
class MeasuredImages:
    """Statistics of the channels, of values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clips: int  # crops that they were measured on
    bad: tuple[BadFile, ...]  # files that could not be used, each once


def measure_images(
    clips: ClipList, section: ImageSection, *, seed: int, max_clips: int, workers: int | None
) -> MeasuredImages:
    """Statistics over one random crop each of at most `max_clips` random images; the same under a seed.

    Raises `ImageError` when nothing can be read, or a channel is the same everywhere.
    """
    generator = seeded_generator(Stream.STATISTICS_ORDER, seed=seed)
    order = torch.randperm(len(clips), generator=generator)[:max_clips]
    crops = _Crops(clips, section, order, seed)
    batches = [range(begin, min(begin + _BATCH, len(order))) for begin in range(0, len(order), _BATCH)]
    total = torch.zeros(2, section.channels, dtype=torch.float64)  # of the values, and of their squares
    pixels, bad = 0, dict[str, str]()
    for images, found in worker_loader(crops, batches, collate=_collate, workers=workers):
        values = images.double().div_(255).transpose(0, 1).flatten(1)  # (B, C, H, W) -> (C, B*H*W)
        total += torch.stack([values.sum(1), values.square().sum(1)])
        pixels += values.shape[1]
        for path, reason in found:
            bad.setdefault(path, reason)
    mean, mean_square = total / pixels
    std = (mean_square - mean.square()).clamp_min(0).sqrt()
    if bool((std < 1e-4).any()):
        raise ImageError(
            f"images must vary in each channel, but standard deviations are {std.tolist()} over {len(order)} images"
        )
    return MeasuredImages(tuple(mean.tolist()), tuple(std.tolist()), len(order), tuple(bad.items()))


class _Crops(Dataset[_Item]):
    def __init__(self, clips: ClipList, section: ImageSection, order: Tensor, seed: int) -> None:
        self.clips, self.section, self.order, self.seed = clips, section, order, seed

    def __getitem__(self, position: int) -> _Item:
        generator = seeded_generator(Stream.STATISTICS_CROP, seed=self.seed, position=position)
        _, image, bad = read_any_image(self.clips, int(self.order[position]), self.section, generator)
        return image, bad


def _collate(items: Sequence[_Item]) -> _Item:
    return torch.stack([image for image, _ in items]), [bad for _, found in items for bad in found]
