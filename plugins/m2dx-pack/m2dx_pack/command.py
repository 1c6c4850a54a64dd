"""`m2dx pack`: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

commands = typer.Typer(add_completion=False)


@commands.command()
def pack(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET", help="A folder of audio, a CSV list, or a recipe (YAML).", show_default=False
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write the pack to.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY.PATH=VALUE", help="Changes to the recipe; values are YAML.", show_default=False
        ),
    ] = None,
    form: Annotated[
        Literal["flac", "wav", "keep"],
        typer.Option(
            "--format",
            help="flac: half the size; wav: several times as fast to read; keep: the files as they are.",
        ),
    ] = "flac",
    sample_rate: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Resample to this rate, Hz; default the recipe's rate, or each file's own.",
            show_default=False,
        ),
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Size of a shard, MB.")] = 512,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Loading processes; default one per core.", show_default=False)
    ] = None,
    max_bad_fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Pack nothing if a larger share of files is unusable.")
    ] = 0.05,
) -> None:
    """Pack data sets into a few large tar files that load fast, for a recipe's data set `packed`.

    Example: m2dx pack recordings/ packed/ --format wav
    """
    if form == "keep" and sample_rate is not None:
        raise typer.BadParameter("--sample-rate is for --format flac and wav; keep stores files as they are")
    is_recipe = dataset.suffix.lower() in (".yaml", ".yml")
    if overrides and not is_recipe:
        raise typer.BadParameter(f"{' '.join(overrides)}: only recipes take changes, but {dataset} is none")
    if is_recipe:
        from m2dx.recipe.files import read_recipe

        read_recipe(dataset)  # an unreadable file is reported before torch is imported
    import m2dx
    from m2dx.cli.shared import terminal
    from m2dx_pack.job import run_pack, source_of_path, source_of_recipe
    from m2dx_pack.packing import PackOptions

    if is_recipe:
        host = m2dx.PluginHost.discover()
        source = source_of_recipe(m2dx.load_recipe(dataset, overrides or [], host=host), host)
    else:
        source = source_of_path(dataset)
    options = PackOptions(form, sample_rate, shard_size * 10**6, workers, max_bad_fraction)
    run_pack(source, folder, options, console=terminal())
