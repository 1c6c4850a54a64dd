"""A sweep: a recipe trained at every point of a grid of overrides.

Each point is a process `m2dx train RECIPE KEY=VALUE... --resume-or-start`, whose run lies in the sweep's folder and is
named after its values:

<output>/<sweep>/
  grid.json          the keys, and the values of each point
  <point>/           the run's folder
  logs/<point>.log   what the run printed
  results.jsonl      records of all scores
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from m2dx.contract.atomic import replace_json
from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.jobs.grid import KEEP, Grid, run_name, sweep_name
from m2dx.jobs.slurm import check_script, slurm_script
from m2dx.jobs.sweep_table import GRID_FILE, SweptGrid, is_finished, sweep_table
from m2dx.recipe.document import plain_yaml
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.recipe.schema import Recipe
from m2dx.results.formats import terminal as terminal_parts
from m2dx.results.scoring import Scoring
from m2dx.training.child import kill_child, module_command, start_child
from m2dx.training.run_folder import as_started, differences
from m2dx.training.signals import StopRequests

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

MOST_NAMED = 4
"""Points that an error names one by one."""
MOST_LINES = 12
"""Lines of a failed run that are shown."""
HOW_IT_RUNS = (
    "output",
    "data.workers",
    "train.device",
    "train.threads",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "train.timeout_minutes",
)
"""Fields that may change while a sweep goes on, since they change no result (its folder may have been moved)."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Options:
    """How a sweep is run."""

    processes: int = 1  # of each run
    jobs: int | None = None  # runs side by side
    slurm: Path | None = None
    sbatch: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True)
class Point:
    """One point of the grid: a run."""

    name: str
    values: Mapping[str, str]  # by key, of the arguments with several values
    arguments: tuple[str, ...]  # of `m2dx train`
    recipe: Recipe  # resolved; its output is the sweep's folder

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.recipe.output / self.name

    @property
    def log(self) -> Path:
        """What the run has printed."""
        return self.recipe.output / "logs" / f"{self.name}.log"

    def command(self, processes: int) -> list[str]:
        """What trains it, under torchrun if with several processes."""
        train = ("m2dx", "train", *self.arguments, "--resume-or-start")
        if processes == 1:
            return module_command(*train)
        return module_command(
            "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", *train
        )


def run_sweep(path: Path, grid: Grid, options: Options, *, host: PluginHost, console: Console) -> int:
    """Trains what is not finished of a recipe's grid, or writes the Slurm script for it; the exit code.

    Every point is checked before anything is written or started. RecipeError where one of them, or an option, is wrong.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RecipeError(
            "m2dx sweep must be started without torchrun, which it starts itself for each run: --processes"
        )
    points = points_of(path, grid, host=host, processes=options.processes)
    folder = points[0].recipe.output
    swept = _checked_grid(path, grid, points, host)
    left = [point for point in points if not is_finished(point.folder)]
    console.print(
        f"sweep: {folder} ({len(points) - len(left)} of {len(points)} points finished)", soft_wrap=True
    )
    if options.dry_run:
        for point in points:
            values = " ".join(shlex.quote(f"{key}={value}") for key, value in point.values.items())
            state = "left to do" if point in left else "finished"
            command = f"\n  {shlex.join(point.command(options.processes))}" if point in left else ""
            console.print(f"{point.name} ({state}): {values}{command}", soft_wrap=True, highlight=False)
        return 0
    jobs = options.jobs or 1
    gpus = gpu_groups(left, jobs=jobs, processes=options.processes)
    if options.slurm is not None:
        check_script(options.slurm)
    replace_json(folder / GRID_FILE, asdict(swept))
    (folder / "logs").mkdir(exist_ok=True)
    if options.slurm is None:
        code = run_points(left, gpus, processes=options.processes, console=console)
        if any(is_finished(point.folder) for point in points):
            for part in terminal_parts(sweep_table(folder)):
                console.print(part)
        if code:
            console.print("The same command goes on with what is not finished.")
        return code
    if not left:
        console.print("all points are finished: there is nothing to submit")
        return 0
    commands = [point.command(options.processes) for point in left]
    text = slurm_script(folder, commands, file=options.slurm, jobs=options.jobs, options=options.sbatch)
    options.slurm.parent.mkdir(parents=True, exist_ok=True)
    options.slurm.write_text(text, encoding="utf-8")
    console.print(
        f"{len(left)} points. Submit them with:\n  sbatch {shlex.quote(str(options.slurm))}\n"
        f"and see how far they are with:\n  m2dx sweep-table {shlex.quote(str(folder))}",
        soft_wrap=True,
    )
    return 0


def points_of(path: Path, grid: Grid, *, host: PluginHost, processes: int = 1) -> list[Point]:
    """The recipe at every point of the grid, in `<output>/<sweep>/<point>`.

    RecipeError with all that is wrong with any of them: recipes that are not valid, evaluations whose lists cannot be
    used, batches that do not divide by the processes, points that are the same.
    """
    choices = list(grid.choices())
    names = [run_name({key: choice[key] for key in grid.swept}) for choice in choices]
    overrides = [
        [f"{key}={value}" for key, value in choice.items() if value != KEEP and key not in ("name", "output")]
        for choice in choices
    ]
    sweeps = [[f"{key}={choice[key]}" for key in ("name", "output") if key in choice] for choice in choices]
    recipes, problems = [], []
    for name, changes, own in zip(names, overrides, sweeps, strict=True):
        try:
            recipes.append(load_recipe(path, [*changes, *own], host=host))
        except RecipeError as error:
            problems.append((name, str(error)))
    if problems:
        raise _not_valid(problems, len(choices))
    base = recipes[0]
    folder = base.output / (base.name if grid.is_named else sweep_name(base.name, grid.swept))
    points = [
        Point(
            name,
            {key: choice[key] for key in grid.swept},
            (str(path), *changes, f"name={_yaml(name)}", f"output={_yaml(str(folder))}"),
            recipe.model_copy(update={"name": name, "output": folder}),
        )
        for name, choice, changes, recipe in zip(names, choices, overrides, recipes, strict=True)
    ]
    _check_together(points, host, processes)
    return points


def _yaml(text: str) -> str:
    """A text as a value that YAML reads as this text."""
    return text if plain_yaml(text) == text else json.dumps(text, ensure_ascii=False)


def _check_together(points: Sequence[Point], host: PluginHost, processes: int) -> None:
    problems: list[tuple[str, str]] = []
    named: set[str] = set()
    same: dict[str, str] = {}
    evaluations: dict[str, str | None] = {}
    for point in points:
        recipe, train = point.recipe, point.recipe.train
        if point.name in named:
            text = f"values must give names that differ, but two points are called {point.name}"
            problems.append((point.name, text))
        named.add(point.name)
        text = recipe.model_copy(update={"name": "point"}).model_dump_json()
        if same.setdefault(text, point.name) != point.name:
            text = f"points must differ, but this is the same recipe as {same[text]}; leave one out"
            problems.append((point.name, text))
        accumulate = 1 if train.accumulate == "auto" else train.accumulate
        if train.batch_size % (accumulate * processes):
            text = (
                f"train.batch_size must be a multiple of train.accumulate x processes ({accumulate} x {processes}), "
                f"but is {train.batch_size}"
            )
            problems.append((point.name, text))
        if recipe.evaluation.tasks:
            evaluation = recipe.evaluation.model_dump_json()
            if evaluation not in evaluations:
                try:
                    Scoring.of(recipe, host)
                    evaluations[evaluation] = None
                except M2dxError as error:
                    evaluations[evaluation] = str(error)
            problem = evaluations[evaluation]
            problems += [] if problem is None else [(point.name, problem)]
    if problems:
        raise _not_valid(problems, len(points))


def _not_valid(problems: Sequence[tuple[str, str]], count: int) -> RecipeError:
    """Each text once, with the points that it is true of."""
    points: dict[str, list[str]] = {}
    for name, text in problems:
        points.setdefault(text, []).append(name)
    wrong = {name for name, _ in problems}
    lines = [f"{len(wrong)} of {count} points cannot be run, so nothing was started"]
    for text, names in points.items():
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        where = "all points" if len(names) == count else ", ".join(names[:MOST_NAMED]) + more
        lines += [f"{where}:", *(f"  {line}" for line in text.splitlines())]
    return RecipeError("\n".join(lines))


def _checked_grid(path: Path, grid: Grid, points: Sequence[Point], host: PluginHost) -> SweptGrid:
    """The grid with the points that the sweep's folder has already.

    RecipeError where the folder is that of a run or of another grid, or has runs of other recipes.
    """
    folder = points[0].recipe.output
    if (folder / "recipe.yaml").exists():
        raise RecipeError(f"{folder} holds a run; give the sweep another name (name=...)")
    swept = SweptGrid(
        path.stem, tuple(axis.keys for axis in grid.axes), {point.name: point.values for point in points}
    )
    if (folder / GRID_FILE).exists():
        before = SweptGrid.read(folder)
        if before.keys != swept.keys:
            was, now = ("  ".join(map("+".join, keys)) for keys in (before.keys, swept.keys))
            raise RecipeError(
                f"a sweep must go on over the keys that it was started with ({was}), in their order, but this one is "
                f"over {now}; give it another name (name=...)"
            )
        swept = SweptGrid(swept.recipe, swept.keys, {**before.points, **swept.points})
    problems = []
    for point in points:
        if (point.folder / "recipe.yaml").exists():
            started = recipe_to_mapping(load_recipe(point.folder / "recipe.yaml", host=host))
            wanted = recipe_to_mapping(as_started(point.recipe, started))
            changed = [
                text for text in differences(started, wanted) if text.partition(" ")[0] not in HOW_IT_RUNS
            ]
            problems += [f"  {point.name}: {', '.join(sorted(changed))}"] if changed else []
    if problems:
        raise RecipeError(
            "runs must have been trained with the recipes of their points, but these differ (run -> point):\n"
            + "\n".join(problems)
            + f"\ngive this sweep another name (name=...), or remove these runs from {folder}"
        )
    return swept


def gpu_groups(points: Sequence[Point], *, jobs: int, processes: int) -> list[str | None]:
    """For each of the runs side by side, its `CUDA_VISIBLE_DEVICES`; None: as it is.

    Each has GPUs of its own where there are enough; runs of one process share them otherwise. RecipeError where runs of
    several processes would have to.
    """
    gpus = visible_gpus()
    chosen = any(point.recipe.train.device.startswith(("cpu", "cuda:")) for point in points)
    if jobs == 1 or not gpus or chosen:
        return [None] * jobs
    if jobs * processes <= len(gpus):
        return [",".join(gpus[number * processes : (number + 1) * processes]) for number in range(jobs)]
    if processes > 1:
        raise RecipeError(
            f"{jobs} runs of {processes} processes side by side need {jobs * processes} GPUs, but there are "
            f"{len(gpus)}; lower --jobs or --processes"
        )
    return [gpus[number % len(gpus)] for number in range(jobs)]


def visible_gpus() -> list[str]:
    """The GPUs that torch may use, as `CUDA_VISIBLE_DEVICES` names them."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return [name.strip() for name in named.split(",")][:count]
    return [str(number) for number in range(count)]


def run_points(
    points: Sequence[Point], gpus: Sequence[str | None], *, processes: int, console: Console
) -> int:
    """Runs points, as many side by side as there are groups of GPUs; the exit code.

    A run that fails leaves the others alone. Ctrl-C and SIGTERM have the runs at work save and end; a second Ctrl-C
    ends them at once.
    """
    waiting, free = deque(points), list(gpus)
    running: dict[subprocess.Popen[bytes], tuple[Point, str | None, int]] = {}
    failed = stopping = False
    with StopRequests() as requests:
        try:
            while running or (waiting and requests.received is None):
                while waiting and free and requests.received is None:
                    point, devices = waiting.popleft(), free.pop(0)
                    with open(point.log, "ab") as log:
                        child = start_child(point.command(processes), output=log, gpus=devices)
                        running[child] = (point, devices, log.tell())
                    where = "" if devices is None else f" on GPU {devices}"
                    console.print(f"{point.name}: starts{where}, and prints to {point.log}", soft_wrap=True)
                if requests.received is not None and not stopping:
                    stopping = True
                    names = ", ".join(point.name for point, *_ in running.values())
                    console.print(
                        f"stopping: {names} saves after the step at hand; Ctrl-C again ends it at once"
                    )
                    for child in running:
                        child.send_signal(signal.SIGTERM)
                for child in [child for child in running if child.poll() is not None]:
                    point, devices, start = running.pop(child)
                    free.append(devices)
                    kill_child(child)  # what a launcher that was killed has left
                    failed |= not _ended(point, child.returncode, start, stopping=stopping, console=console)
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            console.print("ended at once")
        finally:
            for child in running:
                kill_child(child)
    if requests.received is not None:
        return 128 + requests.received
    return int(failed)


def _ended(point: Point, code: int, start: int, *, stopping: bool, console: Console) -> bool:
    """Says how a run ended, with the end of its log, from byte `start` on, where it failed; whether it is finished."""
    if code == 0 and is_finished(point.folder):
        console.print(f"{point.name}: finished")
        return True
    if stopping or code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        console.print(f"{point.name}: stopped")
        return False
    reason = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    hint = " (often for lack of memory)" if code == -signal.SIGKILL else ""
    console.print(f"{point.name}: failed, {reason}{hint}: {point.log}", style="red", soft_wrap=True)
    for line in last_lines(point.log, start):
        console.print(f"    {line}", soft_wrap=True)
    return False


def last_lines(log: Path, start: int) -> list[str]:
    """The end of what was printed into a log from a byte on; from the last error's first line, if there is one."""
    with open(log, "rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    return lines[errors[-1] :][:MOST_LINES] if errors else lines[-MOST_LINES:]
