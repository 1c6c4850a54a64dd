"""`m2dx tasks`: arguments only."""

from __future__ import annotations

from typing import Annotated

import typer

commands = typer.Typer(add_completion=False)


@commands.command()
def tasks(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this task in detail.")] = None,
) -> None:
    """List the published tasks and how much of each is on this machine, or show how to lay one out."""
    from m2dx.cli.shared import plugin_host, terminal
    from m2dx_tasks.listing import task_page, task_table

    if name is None:
        terminal().print(task_table(plugin_host()))
    else:
        terminal().print(task_page(plugin_host(), name))
