"""The micro-batch that fits into the memory: `train.accumulate: auto`, and `m2dx train --dry-run-memory`.

A process of its own trains real steps, on copies of one clip, of more and more clips a pass, until its memory is full.
What it has trained fits, whether it then raises, crashes or is killed. `python -P -m m2dx.training.micro_batch PARENT`
reads the arguments of `_steps` from stdin and writes lines of JSON: the memory there is, each step, and why it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from m2dx.contract.errors import M2dxError, MemoryShortageError, RecipeError, TrainingError
from m2dx.contract.host import PluginHost
from m2dx.contract.parent import end_with_parent
from m2dx.contract.wording import gigabytes, problem_of
from m2dx.data.batches import ItemKey
from m2dx.data.crops import collate
from m2dx.data.loader import default_workers
from m2dx.recipe.loading import recipe_from_mapping, recipe_to_mapping
from m2dx.recipe.schema import Recipe
from m2dx.training.child import kill_child, module_command, start_child
from m2dx.training.distributed import Processes, pick_device
from m2dx.training.memory import host_memory, is_shortage, kilobyte_fields
from m2dx.training.prepare import PreparedRun, prepare
from m2dx.training.trainer import Trainer

LONGEST_SECONDS = 60.0  # a pass that would take longer is not tried
KEPT_FREE = 0.1
"""Share of the free memory that stays free: fragments of the allocator, and what other programs come to."""
_UNUSED_BYTES = 2**29  # that a process asks for and does not use, such as stacks of threads
_WORKER_BYTES = 2**28  # of a loading process, with its batches


@dataclass(frozen=True)
class Step:
    """A step that was trained."""

    clips: int  # of each pass
    accumulate: int
    peak: int  # memory of the process on the device, bytes
    seconds: float  # of its last pass


@dataclass(frozen=True)
class Trial:
    """What fits into the memory of a device."""

    total: int  # bytes
    usable: int  # bytes
    steps: tuple[Step, ...]  # from few to many clips a pass
    ended: str  # why no larger ones were tried; empty: there are none

    @property
    def best(self) -> Step:
        """The largest that fits. MemoryShortageError: not even one clip does."""
        if not self.steps:
            raise MemoryShortageError(
                f"a training step must fit into the memory, {gigabytes(self.usable)} of which may be used, but with "
                f"one clip at a time it does not: {self.ended}. Take a smaller model (model.size, model.depth), "
                "shorter crops (audio.crop_seconds), larger patches (model.patch_size), train.precision=bf16, or "
                "another device; or end other programs"
            )
        return self.steps[-1]


def choose_accumulation(run: PreparedRun, console: Console) -> PreparedRun:
    """The run with a number for `train.accumulate: auto`, the same in all processes: the fewest passes that fit in all.

    MemoryShortageError, in all of them, where one clip at a time is too much for one.
    """
    train, processes = run.recipe.train, run.processes
    if train.accumulate != "auto":
        return run
    found: Step | str | None = None
    # Each GPU is measured; the machine's memory is measured once, by one process for all.
    if processes.device.type == "cuda" or os.environ.get("LOCAL_RANK", "0") == "0":
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        try:
            found = try_steps(run.recipe, processes.device, processes.world_size, here).best
        except M2dxError as error:
            found = str(error)
    every = processes.gather(found)
    if problems := [problem for problem in every if isinstance(problem, str)]:
        raise MemoryShortageError(problems[0])
    step = min((step for step in every if isinstance(step, Step)), key=lambda step: step.clips)
    if processes.is_main:
        clips = f"{step.clips} clips at a time take {gigabytes(step.peak)}"
        console.print(f"train.accumulate: {step.accumulate}, since {clips}")
    train = train.model_copy(update={"accumulate": step.accumulate})
    return replace(run, recipe=run.recipe.model_copy(update={"train": train}))


def dry_run(recipe: Recipe, console: Console, *, processes: int) -> None:
    """Prints what each size of the micro-batch takes of this machine's memory, and what to set; writes nothing.

    RecipeError where the recipe cannot be trained.
    """
    device = pick_device(recipe.train.device)
    with console.status("training steps on copies of a clip"):
        trial = try_steps(recipe, device, processes, processes)
    table = Table(title=f"{recipe.name}, {recipe.train.precision}, on {device.type}", title_justify="left")
    for column in ("clips a pass", "accumulate", "memory", "seconds a pass"):
        table.add_column(column, justify="right")
    for step in trial.steps:
        table.add_row(f"{step.clips}", f"{step.accumulate}", gigabytes(step.peak), f"{step.seconds:.2f}")
    best, across = trial.best, f" in each of {processes} processes" if processes > 1 else ""
    console.print(table)
    console.print(
        f"{best.clips} clips a pass fit{across}: an effective batch of {recipe.train.batch_size} needs "
        f"train.accumulate={best.accumulate}. "
        f"{f'More were not tried: {trial.ended}. ' if trial.ended else ''}"
        f"{gigabytes(trial.usable)} of {gigabytes(trial.total)} may be used.",
        highlight=False,
        soft_wrap=True,
    )


def micro_batches(batch_size: int, processes: int) -> list[int]:
    """The clips of a pass that are tried: they divide a process's part of the batch, and at least double.

    RecipeError where the batch does not divide by the processes.
    """
    if batch_size % processes:
        raise RecipeError(
            f"train.batch_size must be a multiple of the number of processes ({processes}), but is {batch_size}"
        )
    part, sizes = batch_size // processes, [1]
    for clips in range(2, part + 1):
        if part % clips == 0 and (clips >= 2 * sizes[-1] or clips == part):
            sizes.append(clips)
    return sizes


def try_steps(recipe: Recipe, device: torch.device, processes: int, here: int) -> Trial:
    """Trains steps, of one of `processes` that share a batch, `here` on this machine, until the memory is full.

    RecipeError where the recipe cannot be trained, TrainingError where the trial fails otherwise.
    """
    request = {
        "mapping": recipe_to_mapping(recipe),
        "device_name": str(device),
        "processes": processes,
        "here": here,
        "sizes": micro_batches(recipe.train.batch_size, processes),
    }
    child = start_child(
        module_command("m2dx.training.micro_batch", str(os.getpid())),
        input=subprocess.PIPE,
        output=subprocess.PIPE,
        errors=None,
        threads=recipe.train.threads or torch.get_num_threads(),
        gpus=None if device.type == "cuda" else "",
    )
    try:
        answers = child.communicate(json.dumps(request).encode())[0]
    finally:
        kill_child(child)
    lines = [json.loads(line) for line in answers.splitlines()]
    steps = tuple(Step(**line) for line in lines if "clips" in line)
    code = f"exit code {child.returncode}"
    found = {"ended": f"its process was killed, as the system does where memory runs out ({code})"}
    for line in lines:
        found |= {} if "clips" in line else line
    if "refused" in found:
        raise RecipeError(found["refused"])
    if "failed" in found or "total" not in found:
        raise TrainingError(
            f"memory must be measured by training steps, but these failed: {found.get('failed', code)}; `m2dx check` "
            "may tell more"
        )
    return Trial(int(found["total"]), int(found["usable"]), steps, found["ended"])


def main() -> None:
    """Answers the request on stdin."""
    end_with_parent(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what plugins print is no answer
    # Where the machine's memory runs out all the same, this process is to go.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    try:
        for answer in _steps(**json.load(sys.stdin)):
            print(json.dumps(answer), file=answers)
    except M2dxError as error:
        print(json.dumps({"refused": str(error)}), file=answers)
    except Exception as error:  # of whatever kind: the parent tells the user
        shortage, failed = {"ended": "memory ran out"}, {"failed": problem_of(error)}
        print(json.dumps(shortage if is_shortage(error) else failed), file=answers)


def _steps(
    mapping: Mapping[str, Any], device_name: str, processes: int, here: int, sizes: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """The memory there is, then each step that could be trained, and why there are no more."""
    host, device, quiet = PluginHost.discover(), torch.device(device_name), Console(quiet=True)
    recipe = recipe_from_mapping(mapping, host=host, source="the recipe")
    memory = _limit_memory(device, recipe.data.workers, here)
    yield memory
    run = prepare(recipe, host, Processes(0, 1, device), quiet, initialise=False, measure=False)
    copied = 0
    if processes > 1 and recipe.train.sharding == "none":  # DDP has a copy of the gradients on their way
        copied = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    item = run.crops[ItemKey(epoch=0, position=0, clip_id=0)]
    held, one, seconds_a_clip, peak = torch.ones(copied, device=device), collate([item]), 0.0, 0
    for clips in sizes:
        if seconds_a_clip * clips > LONGEST_SECONDS:
            yield {"ended": f"a pass of {clips} clips would take more than {LONGEST_SECONDS:g} s"}
            return
        passes = 1 if clips == sizes[-1] else 2  # in the second one, the gradients of the first are there
        # torch.compile would take minutes for each size, and no more memory
        update = {"accumulate": passes, "batch_size": passes * clips, "rankme_every": 1, "compile": False}
        train = recipe.train.model_copy(update=update)
        trainer = Trainer(replace(run, recipe=run.recipe.model_copy(update={"train": train})), console=quiet)
        trainer.train_step(iter([one] * passes))  # after it, the optimizer has its state
        many = collate([item] * clips)
        started = time.perf_counter()
        trainer.train_step(iter([*[one] * (passes - 1), many]))
        seconds = time.perf_counter() - started
        peak = max(peak, _peak(device))  # Linux's own mark may fall by some pages
        if peak > memory["usable"]:
            yield {"ended": f"{clips} clips a pass take {gigabytes(peak)}"}
            return
        yield asdict(Step(clips, recipe.train.batch_size // (processes * clips), peak, seconds))
        seconds_a_clip = seconds / clips
        del trainer, many
        if device.type == "cuda":
            torch.cuda.empty_cache()
    del held
    yield {"ended": ""}


def _limit_memory(device: torch.device, workers: int | None, here: int) -> dict[str, int]:
    """The memory there is and what may be used of it, bytes; from now on, asking for more raises where it can."""
    if device.type == "cuda":
        torch.zeros(1, device=device)
        free, total = torch.cuda.mem_get_info(device)
        usable = int(free * (1 - KEPT_FREE))
        torch.cuda.set_per_process_memory_fraction(usable / total, device)
        return {"total": total, "usable": usable}
    memory = host_memory()
    loading = _WORKER_BYTES * (default_workers(processes=here) if workers is None else workers)
    more = max(int(memory.available * (1 - KEPT_FREE)) // here - loading, 0)
    limit = kilobyte_fields(Path("/proc/self/status")).get("VmData", 0) + more + _UNUSED_BYTES
    try:
        import resource
    except ImportError:
        raise RecipeError(
            "train.accumulate must be a number on Windows, which does not tell how much memory a step takes"
        ) from None
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return {"total": memory.total, "usable": _peak(device) + more}


def _peak(device: torch.device) -> int:
    """The most memory that this process has had on a device, bytes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_reserved(device)
    import resource  # Windows has none

    # What Linux gives as ru_maxrss may be that of the process before this one; macOS has nothing else, in bytes.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobyte_fields(Path("/proc/self/status")).get("VmHWM", most)


if __name__ == "__main__":
    main()
