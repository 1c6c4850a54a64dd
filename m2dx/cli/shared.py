"""What the commands share: arguments, the installed plugins, and where they print."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2dx.contract.package import find_encoder

if TYPE_CHECKING:
    from rich.console import Console

    from m2dx.contract.host import PluginHost
    from m2dx.recipe.schema import Recipe

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY.PATH=VALUE", help="Changes to the recipe; values are YAML.")
]
AudioFiles = Annotated[list[Path], typer.Argument(metavar="FILES", help="Audio files.")]
AudioInputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILES",
        help="Audio files, folders, lists (.csv, .tsv, or .txt), or - for paths on the standard input.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N, mps, or auto.")]
EncoderPath = Annotated[
    Path,
    typer.Argument(
        metavar="ENCODER",
        parser=find_encoder,
        help="starter (comes with m2dx), a run's folder, export, checkpoint, published checkpoint, or hf://USER/NAME "
        "(m2dx-hub).",
    ),
]


def plugin_host() -> PluginHost:
    """The installed plugins. What they print meanwhile goes to stderr: stdout is what a command gives to others."""
    from m2dx.contract.host import PluginHost

    with contextlib.redirect_stdout(sys.stderr):
        return PluginHost.discover()


def load_with_plugins(recipe: Path, overrides: list[str] | None) -> tuple[PluginHost, Recipe]:
    """The installed plugins and the recipe, validated with them."""
    from m2dx.recipe.files import read_recipe
    from m2dx.recipe.loading import load_recipe

    # an unreadable file is reported before torch and plugins are imported
    read_recipe(recipe)
    with terminal().status("loading torch and plugins"):  # seconds; in a pipe it says nothing
        host = plugin_host()
    return host, load_recipe(recipe, overrides or [], host=host)


def with_recipe_places(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose errors have the line of its `recipe`, or the override, that has the field that they speak of."""

    @wraps(command)
    def told(**arguments: Any) -> None:
        from m2dx.contract.errors import M2dxError, MemoryShortageError, TrainingError

        try:
            command(**arguments)
        except (MemoryShortageError, TrainingError):  # of the machine, or of what came up on the way
            raise
        except M2dxError as error:
            from m2dx.recipe.places import with_places

            error.args = (with_places(str(error), arguments["recipe"], arguments["overrides"] or []),)
            raise

    return told


def launcher() -> list[str]:
    """The command that started this process, up to m2dx's own command."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    machines = os.environ.get("GROUP_WORLD_SIZE", "1")
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ["m2dx"]
    several = [] if machines == "1" else ["--nnodes", machines]
    return ["torchrun", *several, "--nproc-per-node", processes, "-m", "m2dx"]


def terminal(*, stderr: bool = False) -> Console:
    """Where commands print; of torchrun's processes, rank 0 alone does."""
    from m2dx.cli.terminal import Terminal

    return Terminal(stderr=stderr, quiet=os.environ.get("RANK", "0") != "0")
