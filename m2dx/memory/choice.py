"""Which micro-batches a recipe can take, and the largest that fits into the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from m2dx.errors import MemoryShortageError, RecipeError
from m2dx.memory.estimate import Estimate
from m2dx.memory.measure import Measurement
from m2dx.memory.sizes import gigabytes

LONGEST_SECONDS = 60.0
"""A step that would take longer is not measured: its memory follows from that of smaller ones."""
_FIRST_CLIPS = 4
_EXTRAPOLATED = 1.1
"""What is not measured has to fit with this factor."""

Trial = Callable[[int], Measurement]
"""Measures a step with so many clips a pass."""


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


@dataclass(frozen=True)
class Choice:
    """The largest micro-batch that fits."""

    clips: int
    used: int  # bytes, measured, or extrapolated
    usable: int
    measured: bool


@dataclass
class Forecast:
    """The memory of sizes that are not measured, from what is: the last measured one, and what each clip adds."""

    estimate: Estimate
    done: list[Measurement]

    def used(self, clips: int) -> int:
        """Bytes of a step of so many clips a pass."""
        last = self.done[-1]
        return int(last.used + self.slope * (clips - last.clips))

    @property
    def slope(self) -> float:
        """Bytes that each clip adds: as measured, where two sizes were."""
        if len(self.done) > 1 and self.done[-1].clips != self.done[-2].clips:
            last, before = self.done[-1], self.done[-2]
            return max((last.used - before.used) / (last.clips - before.clips), self.estimate.batch)
        return float(self.estimate.activations + self.estimate.batch)

    def seconds(self, clips: int) -> float:
        """Of the measured step."""
        last = self.done[-1]
        return last.seconds * clips / last.clips


def largest_that_fits(sizes: Sequence[int], estimate: Estimate, usable: int, trial: Trial) -> Choice:
    """The largest of the sizes that takes at most `usable` bytes, with two or three trials as a rule.

    MemoryShortageError where the smallest does not fit.
    """
    forecast = Forecast(estimate, [])
    clips = max(size for size in sizes if size <= max(_FIRST_CLIPS, sizes[0]))
    too_many = max(sizes) + 1
    while True:
        found = trial(clips)
        if found.problem is not None or found.used > usable:
            too_many = clips
            if clips == min(sizes):
                raise does_not_fit(clips, estimate, found, usable)
            forecast.done = [m for m in forecast.done if m.clips < clips]
        else:
            forecast.done.append(found)
        candidates = [size for size in sizes if size < too_many]
        if not forecast.done:
            clips = max(size for size in candidates if size <= max(clips // 2, min(sizes)))
            continue
        best = forecast.done[-1]
        more = [size for size in candidates if size > best.clips and forecast.used(size) <= usable]
        if not more:
            return Choice(best.clips, best.used, usable, measured=True)
        quick = [size for size in more if forecast.seconds(size) <= LONGEST_SECONDS]
        if not quick:
            return _extrapolated(forecast, more, usable)
        clips = max(quick)


def _extrapolated(forecast: Forecast, sizes: Sequence[int], usable: int) -> Choice:
    best = forecast.done[-1]
    fitting = [size for size in sizes if forecast.used(size) * _EXTRAPOLATED <= usable]
    if not fitting:
        return Choice(best.clips, best.used, usable, measured=True)
    return Choice(max(fitting), forecast.used(max(fitting)), usable, measured=False)


def does_not_fit(clips: int, estimate: Estimate, found: Measurement, usable: int) -> MemoryShortageError:
    """The error for a machine where not even the smallest micro-batch can be trained."""
    takes = (
        gigabytes(found.used) if found.used else f"about {gigabytes(estimate.peak(clips, accumulate=True))}"
    )
    what = "one clip" if clips == 1 else f"{clips} clips"
    return MemoryShortageError(
        f"a training step must fit into {gigabytes(usable)}, which this device has free, but with {what} at a time it "
        f"takes {takes}, {gigabytes(estimate.fixed)} of that whatever the batch (weights, target, optimizer). Take a "
        "smaller model (model.size, model.depth), shorter crops (audio.crop_seconds), larger patches "
        "(model.patch_size), train.precision=bf16, another device, or end other programs"
    )
