"""Commands around pre-training: train, check, report."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from m2dx.cli import shared
from m2dx.cli.shared import terminal

commands = typer.Typer()


@commands.command()
@shared.with_recipe_places
def train(
    recipe: shared.RecipeFile,
    overrides: shared.Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing run of that name.")
    ] = False,
    resume_or_start: Annotated[
        bool,
        typer.Option(
            "--resume-or-begin", help="Resume if there is a checkpoint, else start: for automatic restarts."
        ),
    ] = False,
    dry_run_memory: Annotated[
        bool,
        typer.Option("--dry-run-memory", help="Print the memory it takes, by clips per pass; train nothing."),
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run-memory: processes (GPUs); default 1.")
    ] = None,
) -> None:
    """Pre-train as the recipe says, export the encoder, evaluate it, and write report.html.

    With several processes: torchrun --nproc-per-node N -m m2dx train RECIPE.
    """
    import signal

    if resume + overwrite + resume_or_start > 1:
        raise typer.BadParameter("--resume, --resume-or-begin and --overwrite exclude each other")
    if dry_run_memory and (resume + overwrite + resume_or_start or os.environ.get("WORLD_SIZE", "1") != "1"):
        raise typer.BadParameter(
            "--dry-run-memory trains nothing, and runs without torchrun; of other options it takes --processes"
        )
    if processes is not None and not dry_run_memory:
        raise typer.BadParameter("--processes is for --dry-run-memory")
    console = terminal()
    if not console.is_terminal:
        console.print(f"loading {recipe}, torch and plugins")
    host, loaded = shared.load_with_plugins(recipe, overrides)
    if dry_run_memory:
        from m2dx.training.micro_batch import dry_run

        dry_run(loaded, console, processes=processes or 1)
        return
    with console.status("loading m2dx"):
        from m2dx.jobs.train import run_recipe

    summary = run_recipe(
        loaded, host, console, resume="or_start" if resume_or_start else resume, overwrite=overwrite
    )
    if summary.stopped_by is not None:
        again = shlex.join([*shared.launcher(), "train", str(recipe), *(overrides or []), "--resume"])
        console.print(f"stopped by {summary.stopped_by} after step {summary.steps}, saved. Resume with:")
        console.print(f"  {again}", soft_wrap=True)
        number = getattr(signal, summary.stopped_by, signal.SIGTERM)
        raise typer.Exit(128 + int(number))


@commands.command()
@shared.with_recipe_places
def check(recipe: shared.RecipeFile, overrides: shared.Overrides = None) -> None:
    """Print the resolved recipe, its shapes and sizes, a step's losses, warnings and the time; train nothing."""
    host, loaded = shared.load_with_plugins(recipe, overrides)
    from m2dx.jobs.check import check_recipe

    check_recipe(loaded, host, terminal())


@commands.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Write a run's report.html again, from the files in its folder."""
    from m2dx.jobs.train import report_of_run

    terminal().print(f"report: {report_of_run(run, shared.plugin_host(), terminal())}")
