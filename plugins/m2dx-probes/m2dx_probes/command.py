"""`m2dx learning-curve`: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2dx.cli.shared import (
    EncoderPath,
    Overrides,
    RecipeFile,
    load_with_plugins,
    terminal,
    with_recipe_places,
)
from m2dx.cli.table_output import FormOption, OutputOption, check_table_options, print_table

commands = typer.Typer(add_completion=False)


@commands.command()
@with_recipe_places
def learning_curve(
    encoder: EncoderPath,
    recipe: RecipeFile,
    overrides: Overrides = None,
    sizes: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Numbers of labels; default 25, 50, 100, 200, ...")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the labels for each number.")] = 5,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Picture to write, .png or .svg.", show_default=False)
    ] = None,
    form: FormOption = None,
    output: OutputOption = None,
) -> None:
    """Score an encoder and the baselines by the number of labels, on the tasks of a recipe."""
    check_table_options(form, output)
    if picture is not None and picture.suffix not in (".png", ".svg"):
        raise typer.BadParameter(f"--picture must end in .png or .svg, but is {picture.name!r}")
    host, loaded = load_with_plugins(recipe, overrides)
    from m2dx.report.saving import save_figure
    from m2dx_probes import curve

    points = curve.learning_curve(
        encoder,
        loaded,
        host,
        sizes=curve.SIZES if sizes is None else curve.parse_sizes(sizes),
        draws=draws,
        console=terminal(stderr=True),
    )
    print_table(curve.curve_table(points), form, output)
    if picture is not None:
        save_figure(curve.curve_figure(points), picture)
        terminal().print(f"picture: {picture}")
