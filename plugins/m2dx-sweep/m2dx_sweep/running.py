"""A sweep: a recipe trained at every point of a grid of overrides.

Each point is a process `m2dx train RECIPE KEY=VALUE... --resume-or-begin`. Its run, named after its values, lies in the
sweep's folder:

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
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from m2dx.contract.atomic import replace_json, replace_text
from m2dx.contract.errors import RecipeError
from m2dx.recipe.document import plain_yaml
from m2dx.recipe.loading import load_recipe, recipe_to_mapping, recipe_to_yaml
from m2dx.recipe.schema import Recipe
from m2dx.results.formats import terminal as terminal_parts
from m2dx.training.child import kill_child, module_command, start_child
from m2dx.training.run_folder import as_started, differences
from m2dx.training.signals import StopRequests
from m2dx_sweep.grid import KEEP, Grid, run_name, sweep_name
from m2dx_sweep.slurm import check_script, slurm_script
from m2dx_sweep.table import GRID_FILE, SweptGrid, is_finished, sweep_table

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

MOST_LINES = 12
"""Lines shown of the log of a failed run."""
HOW_IT_RUNS = (
    "output data.workers train.device train.threads train.checkpoint_every train.keep_last train.keep_every "
    "train.timeout_minutes"
).split()
"""Fields that may differ when a sweep is continued, since they change no result (its folder may have moved)."""


@dataclass(frozen=True)
class Options:
    """How a sweep is run."""

    processes: int = 1  # of each run
    jobs: int | None = None  # runs at a time
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
        """The output of the run."""
        return self.recipe.output / "logs" / f"{self.name}.log"

    def command(self, processes: int) -> list[str]:
        """The command that trains the point, under torchrun for several processes."""
        train = ("m2dx", "train", *self.arguments, "--resume-or-begin")
        launcher = ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m")
        return module_command(*(() if processes == 1 else launcher), *train)


def run_sweep(path: Path, grid: Grid, options: Options, *, host: PluginHost, console: Console) -> int:
    """Trains the unfinished points of a recipe's grid, or writes a Slurm script for them; returns the exit code.

    Checks the recipe of every point before writing or starting anything. Raises RecipeError if one is wrong.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RecipeError(
            "m2dx sweep must be started without torchrun, which it starts itself for each run: --processes"
        )
    points = points_of(path, grid, host=host)
    folder = points[0].recipe.output
    swept = _checked_grid(path, grid, points, host)
    left = [point for point in points if not is_finished(point.folder)]
    done = len(points) - len(left)
    console.print(f"sweep: {folder} ({done} of {len(points)} points finished)")
    if options.dry_run:
        for point in points:
            values = " ".join(shlex.quote(f"{key}={value}") for key, value in point.values.items())
            state = "left to do" if point in left else "finished"
            command = f"\n  {shlex.join(point.command(options.processes))}" if point in left else ""
            console.print(f"{point.name} ({state}): {values}{command}")
        return 0
    if options.slurm is not None:
        check_script(options.slurm)
    replace_json(folder / GRID_FILE, asdict(swept))
    (folder / "logs").mkdir(exist_ok=True)
    if options.slurm is None:
        gpus = gpu_groups(visible_gpus(), jobs=options.jobs or 1, processes=options.processes)
        code = run_points(left, gpus, processes=options.processes, console=console)
        if any(is_finished(point.folder) for point in points):
            console.print(*terminal_parts(sweep_table(folder), console.width), sep="\n")
        if code:
            console.print("The same command continues with the unfinished points.")
        return code
    if not left:
        console.print("all points are finished: there is nothing to submit")
        return 0
    commands = [point.command(options.processes) for point in left]
    text = slurm_script(folder, commands, file=options.slurm, jobs=options.jobs, options=options.sbatch)
    replace_text(options.slurm, text)
    console.print(
        f"{len(left)} points. Submit them with:\n  sbatch {shlex.quote(str(options.slurm))}\n"
        f"and follow their progress with:\n  m2dx sweep-table {shlex.quote(str(folder))}"
    )
    return 0


def points_of(path: Path, grid: Grid, *, host: PluginHost) -> list[Point]:
    """The recipe at every point of the grid, in `<output>/<sweep>/<point>`.

    Raises RecipeError with all problems of all points: invalid recipes, and names or recipes that several points share.
    """
    keys = [key for keys in grid.swept for key in keys]
    found: list[tuple[str, dict[str, str], list[str], Recipe]] = []
    problems: dict[str, list[str]] = {}  # text -> the points that have the problem
    folder = Path()
    for number, choice in enumerate(grid.choices()):
        values = {key: choice[key] for key in keys}
        name = run_name(values)
        changes = [f"{key}={value}" for key, value in choice.items() if value != KEEP]
        try:
            recipe = load_recipe(path, changes, host=host)
        except RecipeError as error:
            problems.setdefault(str(error), []).append(name)
            continue
        if number == 0:
            folder = recipe.output / (recipe.name if "name" in choice else sweep_name(recipe.name, keys))
        own = [change for change in changes if not change.startswith(("name=", "output="))]
        found.append((name, values, own, recipe))
    for name, count in Counter(name for name, *_ in found).items():
        if count > 1:
            text = f"values must give names that differ, but {count} points are called {name}"
            problems.setdefault(text, []).append(name)
    alike: dict[str, list[str]] = {}  # recipe -> its points
    for name, recipe in {name: recipe for name, *_, recipe in found}.items():
        same = recipe.model_copy(update={"name": "", "output": Path()})
        alike.setdefault(recipe_to_yaml(same), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            text = f"points must train different recipes, but {' and '.join(names)} are the same training"
            problems[text] = names
    if problems:
        lines = ["some points cannot be run, so nothing was started"]
        for text, names in problems.items():
            lines += [f"{', '.join(names)}:", *(f"  {line}" for line in text.splitlines())]
        raise RecipeError("\n".join(lines))
    return [
        Point(
            name,
            values,
            (str(path), *own, f"name={_yaml(name)}", f"output={_yaml(str(folder))}"),
            recipe.model_copy(update={"name": name, "output": folder}),
        )
        for name, values, own, recipe in found
    ]


def _yaml(text: str) -> str:
    """A value that YAML reads as this text."""
    return text if plain_yaml(text) == text else json.dumps(text, ensure_ascii=False)


def _checked_grid(path: Path, grid: Grid, points: Sequence[Point], host: PluginHost) -> SweptGrid:
    """The grid, including the points that the sweep's folder already has.

    Raises RecipeError if the folder is that of a run or of another grid, or has runs of other recipes.
    """
    folder = points[0].recipe.output
    if (folder / "recipe.yaml").exists():
        raise RecipeError(f"{folder} holds a run; give the sweep another name (name=...)")
    before: Mapping[str, Mapping[str, str]] = {}
    if (folder / GRID_FILE).exists():
        earlier = SweptGrid.read(folder)
        before = earlier.points
        if list(earlier.keys) != grid.swept:
            was, now = ("  ".join(map("+".join, keys)) for keys in (earlier.keys, grid.swept))
            raise RecipeError(
                f"a sweep must go on over the keys that it was started with ({was}), in their order, but this one is "
                f"over {now}; give it another name (name=...)"
            )
    problems = []
    for point in points:
        if (point.folder / "recipe.yaml").exists():
            started = recipe_to_mapping(load_recipe(point.folder / "recipe.yaml", host=host))
            changed = differences(started, recipe_to_mapping(as_started(point.recipe, started)))
            others = sorted(text for text in changed if text.partition(" ")[0] not in HOW_IT_RUNS)
            problems += [f"  {point.name}: {', '.join(others)}"] if others else []
    if problems:
        raise RecipeError(
            "runs must have been trained with the recipes of their points, but these differ (run -> point):\n"
            + "\n".join(problems)
            + f"\ngive this sweep another name (name=...), or remove these runs from {folder}"
        )
    return SweptGrid(
        path.stem, tuple(grid.swept), {**before, **{point.name: point.values for point in points}}
    )


def gpu_groups(gpus: Sequence[str], *, jobs: int, processes: int) -> list[str | None]:
    """`CUDA_VISIBLE_DEVICES` for each of the concurrent runs, in turn; None leaves it unchanged."""
    if jobs == 1 or not gpus:
        return [None] * jobs
    several = [gpus[number % len(gpus)] for number in range(jobs * processes)]
    return [",".join(several[start : start + processes]) for start in range(0, len(several), processes)]


def visible_gpus() -> list[str]:
    """The GPUs that torch may use, by their names in `CUDA_VISIBLE_DEVICES`."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in named.split(",")][:count] if named else list(map(str, range(count)))


def run_points(
    points: Sequence[Point], gpus: Sequence[str | None], *, processes: int, console: Console
) -> int:
    """Runs points, as many at a time as there are groups of GPUs; returns the exit code.

    If a run fails, the others continue. On Ctrl-C, SIGTERM or SIGHUP the active runs save and end; a second Ctrl-C ends
    them at once.
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
                        child = start_child(
                            ending_with_us(point.command(processes)), output=log, gpus=devices
                        )
                        running[child] = (point, devices, log.tell())
                    console.print(f"{point.name}: starts, and prints to {point.log}")
                if requests.received is not None and not stopping:
                    stopping = True
                    console.print(
                        "stopping: runs save after the step at hand; Ctrl-C again ends them at once"
                    )
                    for child in running:
                        child.send_signal(signal.SIGTERM)
                for child in [child for child in running if child.poll() is not None]:
                    point, devices, start = running.pop(child)
                    free.append(devices)
                    kill_child(child)  # processes that a killed launcher has left
                    text, ended_well = _end_of(point, child.returncode, start, stopping=stopping)
                    console.print(f"{point.name}: {text}")
                    failed |= not ended_well
                time.sleep(0.1)
        except KeyboardInterrupt:
            console.print("ended at once")
        finally:
            for child in running:
                kill_child(child)
    return int(failed) if requests.received is None else 128 + requests.received


def ending_with_us(command: Sequence[str]) -> list[str]:
    """A command of `module_command` whose process ends with this one, also where this one is killed."""
    *python, module = command[:4]
    return [*python, "m2dx_sweep.point", str(os.getpid()), module, *command[4:]]


def _end_of(point: Point, code: int, start: int, *, stopping: bool) -> tuple[str, bool]:
    """How a run ended (for a failed one with the end of its log, after byte `start`), and whether it is finished."""
    if code == 0 and is_finished(point.folder):
        return "finished", True
    if stopping or code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        return "stopped", False
    reason = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    hint = " (often for lack of memory)" if reason == "killed by SIGKILL" else ""
    return "\n    ".join([f"failed, {reason}{hint}: {point.log}", *last_lines(point.log, start)]), False


def last_lines(log: Path, start: int) -> list[str]:
    """The last lines of a log after byte `start`; if there is an error, the lines from the last error on."""
    text = log.read_bytes()[start:].decode("utf-8", "replace")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    return lines[errors[-1] :][:MOST_LINES] if errors else lines[-MOST_LINES:]
