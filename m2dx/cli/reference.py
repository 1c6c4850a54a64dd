"""Commands for plugins and for the fields of recipes: plugins, show, schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from m2dx.cli.plugin_commands import CommandGroup, plugin_commands
from m2dx.cli.shared import plugin_host, terminal
from m2dx.cli.table_output import text_table
from m2dx.contract.errors import PluginError

commands = typer.Typer()


@commands.command()
def plugins(context: typer.Context) -> None:
    """List the installed plugins, their components and commands, and why a plugin failed to load."""
    from rich.text import Text

    rows: list[tuple[str, str, Text]] = []
    for record in plugin_host().records:
        lines = [Text(f"{kind}: {', '.join(names)}") for kind, names in record.components.items() if names]
        if record.error is not None:
            lines.append(Text(f"failed: {record.error}", style="red"))
        package = f"{record.distribution or '-'} {record.version or ''}".strip()
        rows.append((record.name, package, Text("\n").join(lines)))
    group = context.find_root().command
    for added in plugin_commands():
        lines = [Text(f"command: {added.name}")]
        try:
            if isinstance(group, CommandGroup) and added.name in group.commands:
                raise PluginError(f"the name {added.name!r} is taken by m2dx itself")
            added.load()
        except PluginError as error:
            lines.append(Text(f"failed: {error}", style="red"))
        rows.append(("", "\n".join(added.packages), Text("\n").join(lines)))
    terminal().print(text_table(("plugin", "package", "components"), rows))


@commands.command()
def show(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Only fields that start with this path.")] = "",
) -> None:
    """Print every recipe field, or those under a path, with type, default and meaning; in a pipe, tab-separated."""
    from m2dx.recipe.model import field_lines

    lines = [line for line in field_lines(plugin_host()) if line.path.startswith(path)]
    if not lines:
        raise typer.BadParameter(f"no recipe field starts with {path!r}; `m2dx show` lists all")
    console = terminal()
    if not console.is_terminal:
        for line in lines:
            typer.echo("\t".join(" ".join(part.split()) for part in line))
        return
    console.print(text_table(("field", "type", "default", "meaning"), lines))


@commands.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from m2dx.recipe.model import json_schema

    typer.echo(json.dumps(json_schema(plugin_host()), indent=2))
