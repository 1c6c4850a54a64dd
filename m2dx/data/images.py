"""Reads image files with Pillow, and cuts them to the size of the input."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from m2dx.contract.components import Clip
from m2dx.contract.errors import ImageError
from m2dx.data.batches import ItemKey, Stream, seeded_generator
from m2dx.data.clips import ClipList
from m2dx.data.crops import BadFile, CropItem, MaskDraw, read_any
from m2dx.data.loader import worker_loader
from m2dx.recipe.schema import ImageSection

IMAGE_EXTENSIONS = frozenset("jpg jpeg jpe png bmp gif tif tiff webp ppm pgm".split())
"""Extensions of the files that an image folder takes."""
_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
_RATIOS = (3 / 4, 4 / 3)  # width to height of a random crop
_TRIES = 10

Box = tuple[int, int, int, int]
"""left, upper, right, lower edge, pixels"""


def read_image(path: Path, *, channels: int) -> Image.Image:
    """An image in colour (3 channels) or grey (1), decoded as a whole; transparency is left out.

    Raises `ImageError`, with the reason only (the caller knows the path), for what is missing, no image, truncated, of
    more than 8 bits per channel, or so large that Pillow takes it for an attack.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on transparency, and on sizes that Pillow still reads
            with Image.open(path) as image:
                if image.mode not in _EIGHT_BIT:
                    raise ImageError(
                        f"images must have 8 bits per channel, but this one is of mode {image.mode}; convert it"
                    )
                return image.convert(_MODES[channels])
    except FileNotFoundError:
        raise ImageError("missing: no such file") from None
    # What Pillow raises for broken files depends on the format.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
    ) as error:
        raise ImageError(f"cannot be read as an image: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: {error}") from error


def resized(image: Image.Image, size: tuple[int, int], box: Box) -> Tensor:
    """The box of an image at the size (height, width): (C, H, W) uint8, by bicubic interpolation."""
    cut = image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box)
    values = np.array(cut, dtype=np.uint8)
    return torch.from_numpy(values if values.ndim == 3 else values[:, :, None]).permute(2, 0, 1).contiguous()


def middle_box(image_size: tuple[int, int], size: tuple[int, int]) -> Box:
    """The largest box in the middle of an image (width, height) with the proportions of the size (height, width)."""
    width, height = image_size
    scale = min(width / size[1], height / size[0])
    wide, high = max(round(size[1] * scale), 1), max(round(size[0] * scale), 1)
    left, upper = (width - wide) // 2, (height - high) // 2
    return left, upper, left + wide, upper + high


def random_box(
    image_size: tuple[int, int], crop_scale: tuple[float, float], generator: torch.Generator
) -> Box:
    """A random box of an image (width, height), whose share of the area is within `crop_scale`.

    Its ratio of width to height is between 3/4 and 4/3 (MAE, which has it from Inception). Where ten tries do not
    fit into the image, the largest box in its middle that has such a ratio.
    """
    width, height = image_size
    for _ in range(_TRIES):
        share, ratio, x, y = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = width * height * (crop_scale[0] + share * (crop_scale[1] - crop_scale[0]))
        ratio = math.exp(math.log(_RATIOS[0]) + ratio * math.log(_RATIOS[1] / _RATIOS[0]))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, upper = int(x * (width - wide + 1)), int(y * (height - high + 1))
            return left, upper, left + wide, upper + high
    ratio = min(max(width / height, _RATIOS[0]), _RATIOS[1])
    return middle_box(image_size, (1000, round(1000 * ratio)))


def random_crop(
    image: Image.Image,
    size: tuple[int, int],
    *,
    crop_scale: tuple[float, float],
    flip: bool,
    generator: torch.Generator,
) -> Tensor:
    """A random crop (C, H, W) uint8 at the size, flipped left to right in half of the cases where `flip` says so."""
    crop = resized(image, size, random_box(image.size, crop_scale, generator))
    if flip and float(torch.rand((), generator=generator)) < 0.5:
        crop = crop.flip(-1)
    return crop


def middle_crop(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """The middle of an image (C, H, W) uint8 at the size: as much of it as the proportions allow."""
    return resized(image, size, middle_box(image.size, size))


@dataclass(frozen=True)
class TrainingImages(Dataset[CropItem]):
    """Items by `ItemKey`: a random crop of the key's image, its labels, and a mask draw.

    Crop and mask follow from (seed, epoch, position) alone, as those of audio do. An image that cannot be read is
    replaced by one drawn from the same randomness, and named in `bad`. Raises `ImageError` when 100 in a row cannot
    be read.
    """

    clips: ClipList
    section: ImageSection
    seed: int
    draw_mask: MaskDraw
    noise: None = None  # there is none with images

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: ItemKey) -> CropItem:
        where = {"seed": self.seed, "epoch": key.epoch, "position": key.position}
        generator = seeded_generator(Stream.CROP, **where)
        clip_id, image, bad = read_any_image(self.clips, key.clip_id, self.section, generator)
        return CropItem(
            wav=torch.empty(0),
            noise_wav=None,
            labels=self.clips.labels(clip_id),
            ids_shuffle=self.draw_mask(seeded_generator(Stream.MASK, **where)),
            clip_id=clip_id,
            crop=None,
            bad=tuple(bad),
            image=image,
        )


def read_any_image(
    clips: ClipList, clip_id: int, section: ImageSection, generator: torch.Generator
) -> tuple[int, Tensor, list[BadFile]]:
    """A random crop (C, H, W) of an image, or of another where it cannot be read; its id, and the bad files."""

    def read(clip: Clip) -> Tensor:
        image = read_image(clip.path, channels=section.channels)
        return random_crop(
            image, section.size, crop_scale=section.crop_scale, flip=section.flip, generator=generator
        )

    return read_any(clips, clip_id, read, refusal=ImageError, generator=generator)


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
