"""`m2dx new-plugin`: arguments only."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(add_completion=False)


@commands.command()
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name, such as whale-song.")],
    kind: Annotated[str, typer.Option("--kind", help="Kind of its component.")] = "offline_encoder",
    folder: Annotated[Path, typer.Option("--folder", help="Folder to write m2dx-NAME into.")] = Path("."),
) -> None:
    """Write m2dx-NAME, a working plugin to start from, with tests, a recipe and a CI file."""
    from m2dx.cli.shared import plugin_host, terminal
    from m2dx_scaffold.package import PluginNames, check_not_installed, write_plugin

    names = PluginNames(name, kind)  # what cannot be is told before torch and plugins are imported
    check_not_installed(names, plugin_host())
    package = write_plugin(name, folder, kind)
    steps = f"pip install -e {shlex.quote(str(package))}, then see {package / 'README.md'}"
    terminal().print(f"plugin: {package}\n{steps}")
