"""What `m2dx sweep` and `m2dx sweep-table` do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.jobs.slurm import slurm_script
from m2dx.results.formats import terminal as terminal_parts
from m2dx.results.table import ResultTable
from m2dx.sweep.beginning import check_beginning, check_names, count_states, reopen, write_beginning
from m2dx.sweep.folder import State, SweepFolder
from m2dx.sweep.grid import Grid
from m2dx.sweep.layout import sweep_table
from m2dx.sweep.points import Plan, Point, plan_sweep
from m2dx.sweep.processes import train_command
from m2dx.sweep.running import Runner
from m2dx.sweep.tables import PRETRAINED, measure

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

SCRIPT_MARK = "# Written by m2dx sweep"


@dataclass(frozen=True)
class Options:
    """How a sweep is run."""

    resume: bool = False
    processes: int = 1
    jobs: int | None = None
    points: tuple[str, ...] = ()  # none: all
    slurm: Path | None = None
    sbatch: tuple[str, ...] = ()
    dry_run: bool = False


def run_sweep(path: Path, grid: Grid | None, options: Options, *, host: PluginHost, console: Console) -> int:
    """Runs a recipe's grid, or what is left of the sweep in a folder (without a grid); the exit code.

    Every point is checked before anything is written or started. RecipeError where one of them, or an option, is wrong.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RecipeError(
            "m2dx sweep must be started without torchrun, which it starts itself for each run: --processes"
        )
    plan: Plan | None = None
    if grid is None:
        sweep = reopen(path, host=host, names=options.points)
    else:
        plan = plan_sweep(path, grid, host=host, processes=options.processes)
        sweep = check_beginning(plan, resume=options.resume, host=host)
        check_names(options.points, [point.name for point in sweep.points])
    chosen = [point for point in sweep.points if not options.points or point.name in options.points]
    if options.dry_run:
        _print_points(sweep.folder, chosen, options, console)
        return 0
    runner = None
    if options.slurm is None:
        runner = Runner(sweep, processes=options.processes, jobs=options.jobs or 1, console=console)
    else:
        _check_script(options.slurm)
    if plan is not None:
        write_beginning(plan, path)
    if runner is None:
        _write_script(sweep.folder, chosen, options, console)
        return 0
    manifest = sweep.folder.read_manifest()
    console.print(f"sweep: {sweep.folder.path} ({count_states(sweep.folder, manifest)})", soft_wrap=True)
    outcome = runner.run(chosen)
    if not options.points:
        print_table(sweep.folder, console)
    if outcome.exit_code:
        again = shlex.join(["m2dx", "sweep", str(sweep.folder.path), *_typed(options)])
        console.print(f"Go on with what is not finished:\n  {again}", soft_wrap=True)
    return outcome.exit_code


def make_table(
    path: Path, *, columns: Sequence[str] = (), encoder: str = PRETRAINED, across: str | None = None
) -> ResultTable:
    """The table of the sweep in a folder. M2dxError where nothing is finished, or an option names what is not there."""
    folder = SweepFolder(path.absolute())
    manifest = folder.read_manifest()
    measured = measure(folder, [point.name for point in manifest.points], encoder=encoder)
    if not measured.runs:
        raise M2dxError(f"a table needs a finished run, but of {path} {count_states(folder, manifest)}")
    return sweep_table(manifest, measured, columns=measured.select(columns), across=across)


def print_table(folder: SweepFolder, console: Console) -> None:
    """Prints the table, where anything is finished."""
    if any(folder.state(point.name) is State.FINISHED for point in folder.read_manifest().points):
        for part in terminal_parts(make_table(folder.path)):
            console.print(part)


def _print_points(folder: SweepFolder, points: Sequence[Point], options: Options, console: Console) -> None:
    console.print(f"sweep: {folder.path}, {len(points)} points; nothing is run", soft_wrap=True)
    for point in points:
        state = folder.state(point.name)
        values = " ".join(shlex.quote(f"{key}={value}") for key, value in point.values.items())
        console.print(f"{point.name} ({state.value}): {values}", soft_wrap=True, highlight=False)
        if state is not State.FINISHED:
            resume = folder.saved_step(point.name) is not None
            command = train_command(folder.recipe(point.name), processes=options.processes, resume=resume)
            console.print(f"  {shlex.join(command)}", soft_wrap=True, highlight=False)


def _check_script(file: Path) -> None:
    if file.exists() and SCRIPT_MARK not in file.read_text(encoding="utf-8", errors="replace"):
        raise RecipeError(
            f"{file} is there already, and not written by m2dx sweep; give --slurm another file"
        )


def _write_script(folder: SweepFolder, points: Sequence[Point], options: Options, console: Console) -> None:
    assert options.slurm is not None
    names = [point.name for point in points if folder.state(point.name) is not State.FINISHED]
    if not names:
        console.print(f"all points of {folder.path} are finished: there is nothing to submit", soft_wrap=True)
        return
    text = slurm_script(
        folder,
        names,
        file=options.slurm,
        processes=options.processes,
        jobs=options.jobs,
        options=options.sbatch,
    )
    options.slurm.parent.mkdir(parents=True, exist_ok=True)
    options.slurm.write_text(text, encoding="utf-8")
    console.print(
        f"{len(names)} points in {folder.path}. Submit them with:\n  sbatch {shlex.quote(str(options.slurm))}\n"
        f"and see how far they are with:\n  m2dx sweep-table {shlex.quote(str(folder.path))}",
        soft_wrap=True,
    )


def _typed(options: Options) -> list[str]:
    """The options that a command to go on with needs."""
    typed = [] if options.processes == 1 else ["--processes", str(options.processes)]
    typed += [] if options.jobs is None else ["--jobs", str(options.jobs)]
    return [*typed, *(part for name in options.points for part in ("--point", name))]
