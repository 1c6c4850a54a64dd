"""The largest micro-batch of a recipe that fits into the memory: what `train.accumulate: auto` stands for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from m2dx.contract.errors import M2dxError, MemoryShortageError
from m2dx.contract.wording import gigabytes
from m2dx.memory.live import storage_bytes
from m2dx.memory.measure import Measurement
from m2dx.memory.setting import Setting
from m2dx.training.prepare import PreparedRun

LONGEST_SECONDS = 60.0
"""A step that would take longer is not measured: its memory follows from that of smaller ones."""
_FIRST_CLIPS = 4
_EXTRAPOLATED = 1.1
"""What is not measured has to fit with this factor."""

Trial = Callable[[int], Measurement]
"""Measures a step with so many clips a pass."""


@dataclass(frozen=True)
class Choice:
    """The largest micro-batch that fits."""

    clips: int
    used: int  # bytes, measured, or extrapolated
    measured: bool


@dataclass
class Forecast:
    """The memory of sizes that are not measured, from what is: the last measured one, and what each clip adds."""

    per_clip: float  # bytes, estimated
    done: list[Measurement] = field(default_factory=list)

    def used(self, clips: int) -> int:
        """Bytes of a step of so many clips a pass."""
        last = self.done[-1]
        return int(last.used + self.slope * (clips - last.clips))

    @property
    def slope(self) -> float:
        """Bytes that each clip adds: as estimated, or more where more was measured."""
        if len(self.done) < 2 or self.done[-1].accumulate != self.done[-2].accumulate:
            return self.per_clip
        last, before = self.done[-1], self.done[-2]
        return max((last.used - before.used) / (last.clips - before.clips), self.per_clip)

    def seconds(self, clips: int) -> float:
        """Of the measured step."""
        return self.done[-1].seconds * clips / self.done[-1].clips


def largest_that_fits(
    sizes: Sequence[int], per_clip: float, usable: int, trial: Trial
) -> Choice | Measurement:
    """The largest of the sizes that takes at most `usable` bytes; the smallest's measurement where that does not fit.

    Two or three trials as a rule: a small one, then the largest that should fit by it.
    """
    forecast = Forecast(per_clip)
    clips = max(size for size in sizes if size <= max(_FIRST_CLIPS, sizes[0]))
    candidates = list(sizes)
    while True:
        found = trial(clips)
        if found.problem is None and found.used <= usable:
            forecast.done.append(found)
        else:
            candidates = [size for size in candidates if size < clips]
            if not candidates:
                return found
        if not forecast.done:
            clips = max(size for size in candidates if size <= max(clips // 2, candidates[0]))
            continue
        best = forecast.done[-1]
        more = [size for size in candidates if size > best.clips and forecast.used(size) <= usable]
        quick = [size for size in more if forecast.seconds(size) <= LONGEST_SECONDS]
        if not quick:
            return _extrapolated(forecast, more, usable)
        clips = max(quick)


def _extrapolated(forecast: Forecast, sizes: Sequence[int], usable: int) -> Choice:
    fitting = [size for size in sizes if forecast.used(size) * _EXTRAPOLATED <= usable]
    if not fitting:
        return Choice(forecast.done[-1].clips, forecast.done[-1].used, measured=True)
    return Choice(max(fitting), forecast.used(max(fitting)), measured=False)


def choose_accumulation(run: PreparedRun, console: Console) -> PreparedRun:
    """The run with a number for `train.accumulate`, the same in all processes: the fewest passes that fit everywhere.

    MemoryShortageError, in all of them, where one clip at a time is too much for one.
    """
    if run.recipe.train.accumulate != "auto":
        return run
    if run.processes.is_main:
        console.print("train.accumulate is auto: measuring what fits into the memory")
    found: Choice | str | None = None
    setting_usable = 0
    if run.processes.device.type == "cuda" or os.environ.get("LOCAL_RANK", "0") == "0":
        try:
            found, setting_usable = _own_choice(run)
        except M2dxError as error:
            found = str(error)
    choices = [(other, usable) for other, usable in run.processes.gather((found, setting_usable)) if other]
    for other, _ in choices:
        if isinstance(other, str):
            raise MemoryShortageError(other)
    least, usable = min(choices, key=lambda pair: pair[0].clips)
    train = run.recipe.train
    accumulate = train.batch_size // (run.processes.world_size * least.clips)
    if run.processes.is_main:
        how = "take" if least.measured else "should take"
        console.print(
            f"train.accumulate: {accumulate}, since {least.clips} clips at a time {how} {gigabytes(least.used)} of the "
            f"{gigabytes(usable)} that may be used; an effective batch of {train.batch_size}",
            soft_wrap=True,
        )
    recipe = run.recipe.model_copy(update={"train": train.model_copy(update={"accumulate": accumulate})})
    return replace(run, recipe=recipe)


def _own_choice(run: PreparedRun) -> tuple[Choice, int]:
    """The choice for this process's device, and the bytes that may be used there."""
    on_cpu = run.processes.device.type == "cpu"
    tensors = [*run.model.parameters(), *run.model.buffers()]
    setting = Setting.of(
        run.recipe,
        run.clips.label_names,
        run.host,
        device=run.processes.device,
        processes=run.processes.world_size,
        on_this_machine=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        given_back=storage_bytes(tensors) if on_cpu else 0,
    )
    usable = setting.memory.usable
    with setting.trials() as trials:
        found = largest_that_fits(
            setting.sizes, setting.per_clip, usable, lambda clips: setting.measure(clips, trials)
        )
    if isinstance(found, Measurement):
        raise does_not_fit(setting, found)
    return found, usable


def does_not_fit(setting: Setting, found: Measurement) -> MemoryShortageError:
    """The error for a device where not even the smallest micro-batch can be trained."""
    takes = found.used if found.problem is None else setting.estimated(found.clips)
    return MemoryShortageError(
        f"a training step must fit into {gigabytes(setting.memory.usable)}, which {setting.device} has to spare, but "
        f"with one clip at a time it takes about {gigabytes(takes)}, {gigabytes(setting.estimate.fixed)} of that "
        "whatever the batch (weights, target, optimizer). Take a smaller model (model.size, model.depth), shorter "
        "crops (audio.crop_seconds), larger patches (model.patch_size), train.precision=bf16, or another device; or "
        "end other programs. m2dx train RECIPE --dry-run-memory shows the parts"
    )
