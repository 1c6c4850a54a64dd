"""Commands around pre-training: train, check, plan, report."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from m2dx.cli.shared import Overrides, RecipeFile, launcher, load_with_plugins, plugin_host, terminal
from m2dx.cli.table_output import text_table

commands = typer.Typer()


@commands.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where a run of that name is.")
    ] = False,
    resume_or_start: Annotated[
        bool,
        typer.Option(
            "--resume-or-begin",
            help="Go on where there is a checkpoint, else start: for restarts by a machine.",
        ),
    ] = False,
    dry_run_memory: Annotated[
        bool,
        typer.Option("--dry-run-memory", help="Print what memory it takes, by clips a pass; train nothing."),
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
    if dry_run_memory:
        if resume + overwrite + resume_or_start:
            raise typer.BadParameter("--dry-run-memory trains nothing; leave the other options out")
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise typer.BadParameter("--dry-run-memory runs without torchrun; give the number of --processes")
    elif processes is not None:
        raise typer.BadParameter("--processes is for --dry-run-memory")
    host, loaded = load_with_plugins(recipe, overrides)
    if dry_run_memory:
        from m2dx.training.micro_batch import dry_run

        dry_run(loaded, host, terminal(), processes=processes or 1)
        return
    from m2dx.jobs.train import run_recipe

    summary = run_recipe(
        loaded, host, terminal(), resume="or_start" if resume_or_start else resume, overwrite=overwrite
    )
    if summary.stopped_by is not None:
        if os.environ.get("RANK", "0") == "0":
            again = shlex.join([*launcher(), "train", str(recipe), *(overrides or []), "--resume"])
            stopped = f"stopped by {summary.stopped_by} after step {summary.steps}, saved"
            terminal().print(f"{stopped}. Go on with:\n  {again}", soft_wrap=True)
        number = getattr(signal, summary.stopped_by, signal.SIGTERM)
        raise typer.Exit(128 + int(number))


@commands.command()
def check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Print the resolved recipe, its shapes and parameter counts, and the losses of one step; train nothing."""
    host, loaded = load_with_plugins(recipe, overrides)
    from m2dx.jobs.check import check_recipe

    check_recipe(loaded, host, terminal())


@commands.command()
def plan(
    clips: Annotated[int, typer.Option(min=1, help="Recordings for pre-training.")],
    gpu_memory: Annotated[float, typer.Option(min=0, help="Memory of each GPU, GB; 0: no GPU.")],
    clip_seconds: Annotated[
        float | None, typer.Option(min=0, help="Length of the clips, s, if they are short.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="GPUs.")] = 1,
    weights: Annotated[
        Path | None, typer.Option(help="Encoder to go on from, instead of the published one.")
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="There are labels, too.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Recipe file to write.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over a recipe that is there.")
    ] = False,
) -> None:
    """Propose one of the published ways to train for data of a given size, and write it as a recipe."""
    from m2dx.jobs.plan import Request, proposal_lines, propose, write_recipe

    proposal = propose(Request(clips, gpu_memory, clip_seconds, processes, weights, labels))
    terminal().print(text_table(("what", "proposal", "where it comes from"), proposal_lines(proposal)))
    if output is not None:
        write_recipe(proposal, output, overwrite=overwrite)
        terminal().print(f"recipe: {output}; its first lines say what to set", soft_wrap=True)


@commands.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Write a run's report.html anew from what is in its folder."""
    from m2dx.jobs.train import report_of_run

    terminal().print(f"report: {report_of_run(run, plugin_host(), terminal())}")
