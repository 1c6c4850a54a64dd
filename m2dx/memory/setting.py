"""A recipe on a device: its possible micro-batches, and the memory of each, estimated or measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.data.loader import default_workers
from m2dx.memory.estimate import Estimate, estimate_memory
from m2dx.memory.limits import Memory, device_memory, resident_bytes
from m2dx.memory.loading import Loading, loading_memory
from m2dx.memory.made_up import Labels
from m2dx.memory.measure import Measurement, Trials
from m2dx.recipe.schema import Recipe


@dataclass(frozen=True)
class Setting:
    """A recipe on one of so many processes; sizes in bytes."""

    recipe: Recipe
    labels: Labels
    processes: int
    device: torch.device
    memory: Memory
    estimate: Estimate
    loading: Loading
    program: int  # of the process before there is a model; 0 on a GPU

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        labels: Labels,
        host: PluginHost,
        *,
        device: torch.device,
        processes: int,
        on_this_machine: int,
        given_back: int = 0,
    ) -> Setting:
        """Estimates the memory. `given_back`: bytes that are taken now, and not counted to be, such as by a model."""
        estimate = estimate_memory(recipe, labels, host, processes=processes)
        workers = recipe.data.workers
        if workers is None:
            workers = default_workers(processes=on_this_machine)
        loading = loading_memory(recipe, labels, workers)
        memory = device_memory(device, processes=on_this_machine)
        program = resident_bytes() - given_back if device.type == "cpu" else 0
        memory = dataclasses.replace(memory, available=memory.available + given_back)
        return cls(recipe, labels, processes, device, memory, estimate, loading, program)

    @property
    def sizes(self) -> list[int]:
        """The clips of one pass that the recipe's batch can be divided into."""
        return micro_batches(self.recipe.train.batch_size, self.processes)

    @property
    def per_clip(self) -> int:
        """Bytes that each clip of a pass adds, estimated."""
        waiting = self.loading.batches if self.device.type == "cpu" else 0
        return self.estimate.activations + self.estimate.batch * (1 + waiting)

    def accumulate(self, clips: int) -> int:
        """Passes per step."""
        return self.recipe.train.batch_size // (self.processes * clips)

    def estimated(self, clips: int) -> int:
        """The memory of a process and of its loading processes."""
        peak = self.estimate.peak(clips, accumulate=self.accumulate(clips) > 1)
        return self.program + peak + self._waiting(clips)

    def trials(self) -> Trials:
        """What `measure` takes: a context."""
        return Trials(self.recipe, self.labels, self.device)

    def measure(self, clips: int, trials: Trials) -> Measurement:
        """The memory of a process and of its loading processes, measured by training two steps."""
        beside = self.estimate.between + self._waiting(clips)
        accumulate, limit = self.accumulate(clips) > 1, self.memory.available - max(beside, 0)
        found = trials.measure(clips, accumulate=accumulate, limit=limit)
        return dataclasses.replace(found, beside=beside)

    def _waiting(self, clips: int) -> int:
        return self.loading.bytes(clips, self.estimate.batch) if self.device.type == "cpu" else 0


def micro_batches(batch_size: int, processes: int) -> list[int]:
    """The clips of one pass that divide a process's part of the batch, from few to many. RecipeError: none does."""
    if batch_size % processes:
        raise RecipeError(
            f"train.batch_size must be a multiple of the number of processes ({processes}), but is {batch_size}"
        )
    part = batch_size // processes
    return [clips for clips in range(1, part + 1) if part % clips == 0]


def doubling(sizes: Sequence[int]) -> list[int]:
    """Of the sizes, from few to many, those that are at least twice the one before."""
    chosen = [sizes[0]]
    for size in sizes[1:]:
        if size >= 2 * chosen[-1]:
            chosen.append(size)
    return chosen
