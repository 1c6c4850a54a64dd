"""`m2dx tasks` and `m2dx hear-scores`: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(add_completion=False)
hear_app = typer.Typer(add_completion=False)


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


@hear_app.command()
def hear_scores(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="EMBEDDINGS",
            help="Folder of embeddings that hear-eval-kit has scored: embeddings/m2dx_tasks.hear, or one task's.",
            show_default=False,
        ),
    ],
    encoder: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="The encoder that they are of: what --model was.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of results.jsonl.")
    ] = Path("runs"),
) -> None:
    """Record the scores of hear-eval-kit, so that `m2dx results` shows them."""
    from m2dx_tasks.hear_scores import import_scores

    for line in import_scores(folder, encoder, output):
        typer.echo(line)
