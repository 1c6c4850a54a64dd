"""Reads image files with Pillow, and cuts them to the size of the input."""

from __future__ import annotations

import errno
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from m2dx.contract.components import Clip
from m2dx.contract.errors import ImageError, M2dxError
from m2dx.contract.paths import check_regular
from m2dx.recipe.schema import ImageSection

_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
_RATIOS = (3 / 4, 4 / 3)  # width to height of a random crop
_TRIES = 10

# On transparency, and on sizes that Pillow still reads. Not by catch_warnings, which threads would undo for each other.
warnings.filterwarnings("ignore", module=r"PIL\.")

Box = tuple[int, int, int, int]
"""left, upper, right, lower edge, pixels"""


def read_image(path: Path, *, channels: int) -> Image.Image:
    """An image in colour (3 channels) or grey (1), decoded as a whole; transparency is left out.

    Raises `ImageError`, with the reason only (the caller knows the path), for what is missing, no image, truncated, of
    more than 8 bits per channel, or so large that Pillow takes it for an attack; OSError where too many files are open.
    """
    try:
        check_regular(path)
        with Image.open(path) as image:
            if image.mode not in _EIGHT_BIT:
                raise ImageError(f"must have 8 bits per channel, but is of mode {image.mode}; convert it")
            return image.convert(_MODES[channels])
    except FileNotFoundError:
        raise ImageError("missing: no such file") from None
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: {error}") from error
    except Exception as error:  # what Pillow raises for a broken file depends on its format
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # of this process, not of the file
        raise ImageError(f"cannot be read as an image: {error}") from error


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


def random_box(image_size: tuple[int, int], shares: tuple[float, float], generator: torch.Generator) -> Box:
    """A random box of an image (width, height), whose share of the area is within `shares`.

    Its ratio of width to height is between 3/4 and 4/3 (MAE, which has it from Inception). Where ten tries do not
    fit into the image, the largest box in its middle that has such a ratio.
    """
    width, height = image_size
    for _ in range(_TRIES):
        share, ratio, x, y = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = width * height * (shares[0] + share * (shares[1] - shares[0]))
        ratio = math.exp(math.log(_RATIOS[0]) + ratio * math.log(_RATIOS[1] / _RATIOS[0]))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, upper = int(x * (width - wide + 1)), int(y * (height - high + 1))
            return left, upper, left + wide, upper + high
    ratio = min(max(width / height, _RATIOS[0]), _RATIOS[1])
    return middle_box(image_size, (1000, round(1000 * ratio)))


def random_crop(image: Image.Image, section: ImageSection, generator: torch.Generator) -> Tensor:
    """A random crop (C, H, W) uint8 at the section's size, half of them flipped left to right where it says so."""
    crop = resized(image, section.size, random_box(image.size, section.crop_scale, generator))
    if section.flip and float(torch.rand((), generator=generator)) < 0.5:
        crop = crop.flip(-1)
    return crop


@dataclass(frozen=True)
class ImageCrops:
    """Reads random crops (C, H, W) of images, as `TrainingCrops` wants them."""

    section: ImageSection
    refusal: ClassVar[type[M2dxError]] = ImageError

    def read(self, clip: Clip, generator: torch.Generator) -> tuple[Tensor, None]:
        """uint8 values; an image has no place in time."""
        image = read_image(clip.path, channels=self.section.channels)
        return random_crop(image, self.section, generator), None
