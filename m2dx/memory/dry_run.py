"""`m2dx train --dry-run-memory`: what a recipe takes of this machine's memory, by size of the micro-batch."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.contract.wording import gigabytes
from m2dx.memory.choice import LONGEST_SECONDS, Forecast
from m2dx.memory.made_up import listed_labels
from m2dx.memory.measure import Measurement, Trials
from m2dx.memory.setting import Setting, doubling, micro_batches
from m2dx.model.precision import check_precision
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import pick_device

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One size of the micro-batch, bytes."""

    clips: int
    accumulate: int
    estimated: int
    measured: int | None
    fits: bool | None  # None: not known, since it was not measured
    note: str = ""


@dataclass(frozen=True)
class DryRun:
    """All that a dry run found."""

    setting: Setting
    rows: tuple[Row, ...]
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]

    @property
    def device(self) -> str:
        """The device's name."""
        device = self.setting.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"

    @property
    def best(self) -> Row | None:
        """The largest size that was measured to fit."""
        fitting = [row for row in self.rows if row.fits]
        return fitting[-1] if fitting else None

    @property
    def clip_measured(self) -> float | None:
        """Bytes that each clip added to a pass, measured between the two largest sizes that can be compared."""
        for before, last in reversed(list(itertools.pairwise(self.measurements))):
            if last.accumulate == before.accumulate:  # else gradients of earlier passes are in one of them
                return (last.used - last.beside - before.used + before.beside) / (last.clips - before.clips)
        return None

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data; sizes in bytes."""
        setting, train = self.setting, self.setting.recipe.train
        fields = dataclasses.fields(setting.estimate)
        names = [field.name for field in fields if field.name not in ("moments", "left_out")]
        estimate = {name: getattr(setting.estimate, name) for name in names}
        return {
            "recipe": setting.recipe.name,
            "batch_size": train.batch_size,
            "precision": train.precision,
            "processes": setting.processes,
            "device": self.device,
            "memory": {**vars(setting.memory), "usable": setting.memory.usable},
            "program": setting.program,
            "estimate": {**estimate, "activations": setting.estimate.activations},
            "loading": vars(setting.loading),
            "sizes": [vars(row) for row in self.rows],
            "measurements": [{**vars(found), "used": found.used} for found in self.measurements],
            "notes": list(self.notes),
            "fits": None
            if self.best is None
            else {"clips": self.best.clips, "accumulate": self.best.accumulate},
        }


def dry_run(recipe: Recipe, host: PluginHost, *, processes: int, say: Say) -> DryRun:
    """Estimates, then measures size by size until the memory or a minute for a step would be passed; writes nothing.

    Clips are made up, so that no recording has to be there; the lists of the data are read for their labels. Raises
    RecipeError where the recipe cannot be trained.
    """
    device = pick_device(recipe.train.device)
    check_precision(recipe.train.precision, device)
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    micro_batches(recipe.train.batch_size, processes)
    labels, unlisted = listed_labels(recipe, host)
    say("estimating")
    try:
        setting = Setting.of(
            recipe, labels, host, device=device, processes=processes, on_this_machine=processes
        )
    except RecipeError as error:
        raise (RecipeError(f"{error}\n{unlisted}") if unlisted else error) from error
    with setting.trials() as trials:
        rows, measurements = _rows(setting, trials, say)
    return DryRun(setting, rows, measurements, _notes(setting, unlisted))


def _rows(setting: Setting, trials: Trials, say: Say) -> tuple[tuple[Row, ...], tuple[Measurement, ...]]:
    forecast, rows, reason, usable = Forecast(setting.per_clip), [], "", setting.memory.usable
    for clips in doubling(setting.sizes):
        row = Row(clips, setting.accumulate(clips), setting.estimated(clips), None, None)
        reason = reason or _reason_to_stop(forecast, clips, usable)
        if reason:
            over = row.estimated > usable or bool(forecast.done and forecast.used(clips) > usable)
            rows.append(replace(row, fits=False if over else None, note=reason))
            continue
        say(f"training two steps, {clips} clip{'s' if clips > 1 else ''} at a time")
        found = setting.measure(clips, trials)
        if found.problem is not None:
            reason = "not tried"
            rows.append(replace(row, fits=False, note=found.problem))
        else:
            forecast.done.append(found)
            rows.append(replace(row, measured=found.used, fits=found.used <= usable))
    return tuple(rows), tuple(forecast.done)


def _reason_to_stop(forecast: Forecast, clips: int, usable: int) -> str:
    """Why a size is not measured; empty: it may be."""
    if not forecast.done:
        return ""
    if forecast.used(clips) > usable:
        return f"not tried: about {gigabytes(forecast.used(clips))}"
    if forecast.seconds(clips) > LONGEST_SECONDS:
        return "not tried: over a minute a step"
    return ""


def _notes(setting: Setting, unlisted: str | None) -> tuple[str, ...]:
    notes, recipe, estimate = [], setting.recipe, setting.estimate
    if unlisted is not None:
        notes.append(f"the data cannot be listed yet, so clips have no labels here: {unlisted}")
    if estimate.left_out is not None:
        notes.append(f"not in the estimate: {estimate.left_out}")
    if recipe.train.compile:
        notes.append("the estimate is of the model before torch.compile, which may save memory")
    if setting.processes > 1 and recipe.train.sharding == "fsdp":
        notes.append(
            "measured in one process with all of the model; the share of each is calculated from that"
        )
    elif setting.processes > 1:
        notes.append("measured in one process; a copy of the gradients, on its way to the others, is added")
    return tuple(notes)


def write_json(found: DryRun, path: Path, console: Console) -> None:
    """Writes all that a dry run found."""
    path.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
    console.print(f"measured memory: {path}", soft_wrap=True)
