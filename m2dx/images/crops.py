"""Random crops of the images with their labels and masks, the same under a seed whoever loads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from m2dx.audio.batches import ItemKey, Stream, seeded_generator
from m2dx.audio.clips import ClipList
from m2dx.audio.crops import BadFile, CropItem, MaskDraw, read_any
from m2dx.components import Clip
from m2dx.errors import ImageError
from m2dx.images.reading import random_crop, read_image
from m2dx.recipe.schema import ImageSection


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
