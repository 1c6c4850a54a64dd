"""Made-up clips in the shapes of a recipe: what memory they take is that of real ones, and no recording is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from m2dx.contract.components import DataInfo
from m2dx.contract.errors import M2dxError
from m2dx.contract.host import PluginHost
from m2dx.data.batches import ItemKey
from m2dx.data.clips import ClipList, PackedStrings, SetLabels, join_sets
from m2dx.data.crops import Batch, CropItem, collate
from m2dx.model.views import DataStatistics, ImageStatistics
from m2dx.recipe.schema import Recipe

Labels = Mapping[str, tuple[str, ...]]
"""Names of the classes by data set."""


def listed_labels(recipe: Recipe, host: PluginHost) -> tuple[Labels, str | None]:
    """The labels of the recipe's data sets, from their lists alone; none, and why, where a list cannot be read yet."""
    try:
        sets = {
            name: (host.build("dataset", section.dataset), section.split)
            for name, section in recipe.data.sets.items()
        }
        return join_sets(sets).label_names, None
    except (M2dxError, OSError) as error:
        return {}, str(error)


@dataclass(frozen=True)
class MadeUpCrops(Dataset[CropItem]):
    """Items as those of the recipe's data, of quiet noise; labels are given for every class in turn."""

    recipe: Recipe
    labels: Labels
    num_patches: int
    noise: None = None  # made-up noise comes from no files

    @property
    def data(self) -> DataInfo:
        """What components may know about the data."""
        if self.recipe.image is not None:
            return DataInfo(None, None, self.labels)
        return DataInfo(self.recipe.audio.sample_rate, self.recipe.audio.crop_samples, self.labels)

    @property
    def clips(self) -> ClipList:
        """A list of as many clips as a step takes; there are no such files."""
        count = self.recipe.train.batch_size
        return ClipList(
            PackedStrings(f"made-up-{number}" for number in range(count)),
            starts=np.zeros(count),
            durations=np.full(count, np.nan),
            sets={name: _labels_of(names, count) for name, names in self.labels.items()},
            repeats=np.ones(count, dtype=np.int64),
            weights=np.ones(count),
        )

    @property
    def statistics(self) -> DataStatistics | ImageStatistics:
        """Statistics that change nothing."""
        if self.recipe.image is None:
            return DataStatistics(0.0, 1.0)
        return ImageStatistics((0.0,) * self.recipe.image.channels, (1.0,) * self.recipe.image.channels)

    def __getitem__(self, key: ItemKey) -> CropItem:
        recipe, image = self.recipe, self.recipe.image
        if image is None:
            inputs = torch.randn(recipe.audio.crop_samples) * 1e-3
        else:
            inputs = torch.zeros(image.channels, *image.size, dtype=torch.uint8)
        noisy = recipe.noise is not None and recipe.noise.ratio > 0.0
        return CropItem(
            inputs=inputs,
            noise_wav=torch.randn_like(inputs) * 1e-3 if noisy else None,
            labels={name: _one_hot(len(names), key.clip_id) for name, names in self.labels.items()},
            ids_shuffle=torch.randperm(self.num_patches),
            clip_id=key.clip_id,
            crop=None,
            bad=(),
        )

    def batch(self, clips: int) -> Batch:
        """One micro-batch."""
        return collate([self[ItemKey(0, number, number)] for number in range(clips)])


def batch_bytes(batch: Batch) -> int:
    """Bytes of a batch's tensors."""
    tensors = [
        batch.inputs,
        batch.noise_wav,
        batch.ids_shuffle,
        batch.clip_ids,
        *batch.labels.values(),
    ]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _one_hot(classes: int, number: int) -> Tensor:
    row = torch.zeros(classes)
    row[number % classes] = 1.0
    return row


def _labels_of(names: tuple[str, ...], count: int) -> SetLabels:
    return SetLabels(
        names, np.arange(count + 1, dtype=np.int64), np.arange(count, dtype=np.int64) % len(names)
    )


NO_FOLDER = Path("made-up")
"""Stands for the folder of a run that writes none."""
