"""`m2dx sweep` and `m2dx sweep-table`: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2dx.cli.shared import RecipeFile, plugin_host, terminal
from m2dx.cli.table_output import FormOption, OutputOption, check_table_options, print_table

sweep_app = typer.Typer(add_completion=False)
table_app = typer.Typer(add_completion=False)


@sweep_app.command()
def sweep(
    recipe: RecipeFile,
    grid: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY.PATH=A,B,...",
            help="Changes to the recipe; keys with several values make the grid.",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes (GPUs) of each run, under torchrun.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at a time; default 1, or with --slurm as many as Slurm allows.",
            show_default=False,
        ),
    ] = None,
    slurm: Annotated[
        Path | None,
        typer.Option(
            help="Run nothing; write a Slurm script with an array task per unfinished point.",
            show_default=False,
        ),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            help="Options of sbatch in that script, such as --time=24:00:00 (repeatable).",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print points and their commands; write nothing.")
    ] = False,
) -> None:
    """Train a recipe at every point of a grid of overrides, then print the scores as a table.

    Example: m2dx sweep recipe.yaml model.mask_ratio=0.6,0.7,0.8 seed=0,1,2. The same command continues a sweep.
    """
    from m2dx.recipe.files import read_recipe
    from m2dx_sweep.grid import parse_grid

    if sbatch and slurm is None:
        raise typer.BadParameter("--sbatch is for the script that --slurm writes")
    parsed = parse_grid(grid or [])
    read_recipe(recipe)  # an unreadable file is reported before torch is imported
    host = plugin_host()
    from m2dx_sweep.running import Options, run_sweep

    options = Options(processes, jobs, slurm, tuple(sbatch or ()), dry_run)
    code = run_sweep(recipe, parsed, options, host=host, console=terminal())
    if code:
        raise typer.Exit(code)


@table_app.command()
def sweep_table(
    folder: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep's folder.", show_default=False)],
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="A score, task/protocol/metric or its start (average: mean of the tasks; *: any text), or a metric "
            "of the training, such as loss (repeatable); default all scores.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="pretrained, or a baseline: start, random_weights, mean_logmel.")
    ] = "pretrained",
    form: FormOption = None,
    output: OutputOption = None,
) -> None:
    """Print the scores of a sweep's finished runs, with seeds pooled, and name what is missing."""
    check_table_options(form, output)
    from m2dx_sweep import table

    print_table(table.sweep_table(folder, columns=column or (), encoder=encoder), form, output)
