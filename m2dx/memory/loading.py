"""What the loading processes take: each its own memory, and the batches that they have ready."""

from __future__ import annotations

import inspect
import itertools
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import Sampler

from m2dx.data.batches import ItemKey
from m2dx.data.loader import training_loader
from m2dx.memory.estimate import made_up_crops
from m2dx.memory.limits import private_bytes
from m2dx.memory.made_up import Labels
from m2dx.recipe.schema import Recipe

_SETTLING_SECONDS = 0.3


@dataclass(frozen=True)
class Loading:
    """The loading processes of one training process."""

    workers: int
    batches: int  # that may wait, in all
    private: int  # of each worker, measured with made-up clips, bytes

    def bytes(self, clips: int, batch: int) -> int:
        """Of all, with batches of so many clips of `batch` bytes."""
        return self.workers * self.private + self.batches * clips * batch


class _Same(Sampler[list[ItemKey]]):
    def __iter__(self) -> Iterator[list[ItemKey]]:
        return itertools.repeat([ItemKey(0, 0, 0)], 64)


def loading_memory(recipe: Recipe, labels: Labels, workers: int) -> Loading:
    """The memory of so many loading processes; one is started to measure it."""
    if not workers:
        return Loading(0, 0, 0)
    prefetch = inspect.signature(training_loader).parameters["prefetch"].default
    loader = training_loader(made_up_crops(recipe, labels), _Same(), workers=1)
    before = multiprocessing.active_children()
    batches = iter(loader)
    next(batches)
    time.sleep(_SETTLING_SECONDS)
    started = [child.pid for child in multiprocessing.active_children() if child not in before]
    private = sum(private_bytes(pid) for pid in started if pid is not None)
    return Loading(workers, workers * prefetch, private)
