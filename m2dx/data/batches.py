"""Which clips each training step takes: the same whatever the number of processes, from any step on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from m2dx.contract.errors import RecipeError


class ItemKey(NamedTuple):
    """One item of a batch; everything random about it follows from the seed, the epoch and the position."""

    epoch: int
    position: int  # in the epoch's order
    clip_id: int


class Stream(IntEnum):
    """Uses of randomness that must not depend on each other."""

    ORDER = 0
    CROP = 1
    NOISE = 2
    MASK = 3
    STATISTICS_ORDER = 4
    STATISTICS_CROP = 5
    STATISTICS_NOISE = 6
    DEVICE = 7  # what is drawn for a clip where the model is: looking masks, augmentations


def stream_seed(stream: Stream, *, seed: int, epoch: int = 0, position: int = 0) -> int:
    """A number of 64 bits that depends on the four numbers, and on nothing else."""
    numbers: Any = (int(stream), seed, epoch, position)
    if seed < 2**32 and epoch < 2**32 and position < 2**32:
        numbers = np.array(numbers, dtype=np.uint32)  # what SeedSequence makes of them, in half the time
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seeded_generator(stream: Stream, *, seed: int, epoch: int = 0, position: int = 0) -> torch.Generator:
    """A generator that depends on the four numbers, and on nothing else."""
    return torch.Generator().manual_seed(stream_seed(stream, seed=seed, epoch=epoch, position=position))


def seeded_uniform(seeds: Tensor, count: int, *, use: int = 0) -> Tensor:
    """(B, count) float32 numbers in [0, 1) from seeds (B,) int64: for each clip its own, the same on every device.

    Numbers of another `use` (from 0 on) are independent. Computed as SplitMix64 does (Steele et al., OOPSLA 2014).
    """
    counters = torch.arange(use << 32, (use << 32) + count, device=seeds.device) + 1
    bits = seeds[:, None] + counters * -0x61C8864680B583EB  # its constants, modulo 2**64
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits = (bits ^ (bits >> shift & (1 << 64 - shift) - 1)) * factor
    bits = bits ^ (bits >> 31 & (1 << 33) - 1)
    return (bits >> 40 & 0xFFFFFF).float() * 2.0**-24


@dataclass(frozen=True)
class Blocks:
    """Clips that lie together, such as in a shard, and how many of these an epoch takes side by side."""

    numbers: Tensor  # (num_clips,) int64: the block of each, from 0 on; -1: in none
    at_once: int

    def permutation(self, generator: torch.Generator) -> Tensor:
        """All clips, shuffled within groups of `at_once` random blocks; those in none are spread over the groups."""
        count = max(int(self.numbers.max()) + 1, 1)
        group_of_block = torch.randperm(count, generator=generator) // self.at_once
        anywhere = torch.randint(count, (len(self.numbers),), generator=generator)
        groups = group_of_block[torch.where(self.numbers < 0, anywhere, self.numbers)]
        shuffled = torch.randperm(len(groups), generator=generator)
        return shuffled[groups[shuffled].argsort(stable=True)]


def epoch_order(
    num_clips: int,
    epoch_size: int,
    *,
    seed: int,
    epoch: int,
    weights: Tensor | None = None,
    blocks: Blocks | None = None,
) -> Tensor:
    """(epoch_size,) clip ids of one epoch: as many fresh permutations as needed, cut to the size.

    With `epoch_size` above `num_clips` this replicates the list (M2D-X, IV-E); below it, each epoch takes other
    clips. With `weights` (num_clips,) the permutations are weighted draws without replacement, so that heavy clips come
    first (M2D-X, IV-B, fine-tuning on AS2M: 200,000 of 2 M clips per epoch; its pre-training is not weighted). With
    `blocks`, each permutation takes a few blocks after the other.
    """
    generator = seeded_generator(Stream.ORDER, seed=seed, epoch=epoch)
    rounds = -(-epoch_size // num_clips)

    def permutation() -> Tensor:
        if blocks is not None:
            return blocks.permutation(generator)
        if weights is None:
            return torch.randperm(num_clips, generator=generator)
        # The order of arrival of exponential clocks is a weighted draw without replacement (Efraimidis and Spirakis,
        # 2006); torch.multinomial has it for 2^24 clips at most.
        arrivals = torch.empty(num_clips, dtype=torch.float64).exponential_(generator=generator) / weights
        return arrivals.argsort()

    return torch.cat([permutation() for _ in range(rounds)])[:epoch_size]


class TrainingBatches(Sampler[list[ItemKey]]):
    """Keys of one process's micro-batches, from `start_step` on: `accumulate` of them per optimizer step.

    Step s takes the positions [k*B, (k+1)*B) of its epoch, k = s % steps_per_epoch; an epoch's rest of less than
    a batch is left out (the next epoch has another order). Micro-batch a of rank r is the slice a*world_size + r
    of them. `draws` are the clip ids of one pass over the data, where some count more than once, and `weights` their
    chances, if they differ; `blocks` says which of them lie together. Ends after `total_steps`, or never. Raises
    `RecipeError` for sizes that do not fit.
    """

    def __init__(
        self,
        num_clips: int,
        *,
        batch_size: int,
        draws: Tensor | None = None,
        weights: Tensor | None = None,
        blocks: Blocks | None = None,
        epoch_size: int | None = None,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        start_step: int = 0,
        total_steps: int | None = None,
    ) -> None:
        if batch_size % (accumulate * world_size):
            raise RecipeError(
                f"train.batch_size must be a multiple of train.accumulate x processes "
                f"({accumulate} x {world_size}), but is {batch_size}"
            )
        self.draws = torch.arange(num_clips) if draws is None else draws
        self.epoch_size = len(self.draws) if epoch_size is None else epoch_size
        sizes = len(self.draws), self.epoch_size
        self._order = partial(epoch_order, *sizes, seed=seed, weights=weights, blocks=blocks)
        if self.epoch_size < batch_size:
            raise RecipeError(
                f"train.batch_size: an epoch must have a batch or more, but has {self.epoch_size} clips for a batch of "
                f"{batch_size}; lower train.batch_size, or set data.epoch_size to {batch_size} or more to repeat clips"
            )
        self.batch_size, self.accumulate = batch_size, accumulate
        self.rank, self.world_size = rank, world_size
        self.start_step, self.total_steps = start_step, total_steps

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.epoch_size // self.batch_size

    @property
    def micro_batch_size(self) -> int:
        """Clips per backward pass of one process."""
        return self.batch_size // (self.accumulate * self.world_size)

    def __len__(self) -> int:
        if self.total_steps is None:
            raise TypeError("endless batches have no length")
        return max(0, self.total_steps - self.start_step) * self.accumulate

    def __iter__(self) -> Iterator[list[ItemKey]]:
        step, epoch, order = self.start_step, -1, torch.empty(0, dtype=torch.int64)
        while self.total_steps is None or step < self.total_steps:
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self.draws[self._order(epoch=epoch)]
            first = step % self.steps_per_epoch * self.batch_size
            for micro in range(self.accumulate):
                start = first + (micro * self.world_size + self.rank) * self.micro_batch_size
                ids = order[start : start + self.micro_batch_size].tolist()
                yield [ItemKey(epoch, start + i, clip_id) for i, clip_id in enumerate(ids)]
            step += 1
