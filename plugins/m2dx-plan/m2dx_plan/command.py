"""`m2dx plan`: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2dx.contract.package import find_encoder

commands = typer.Typer(add_completion=False)


@commands.command()
def plan(
    clips: Annotated[int, typer.Option(min=1, help="Number of recordings for pre-training.")],
    gpu_memory: Annotated[float, typer.Option(min=0, help="Memory of each GPU, GB; 0 without a GPU.")],
    clip_seconds: Annotated[
        float | None, typer.Option(min=0, help="Length of the clips, s; needed if they are short.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 1,
    weights: Annotated[
        Path | None,
        typer.Option(parser=find_encoder, help="Encoder to start from, instead of the published one."),
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="The recordings have labels.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Recipe file to write.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing recipe.")] = False,
) -> None:
    """Propose published training settings for data of a given size, and write them as a recipe."""
    from m2dx.cli.shared import terminal
    from m2dx.cli.table_output import text_table
    from m2dx_plan.plan import Request, proposal_lines, propose, write_recipe

    proposal = propose(Request(clips, gpu_memory, clip_seconds, processes, weights, labels))
    terminal().print(text_table(("what", "proposal", "where it comes from"), proposal_lines(proposal)))
    if output is not None:
        write_recipe(proposal, output, overwrite=overwrite)
        terminal().print(f"recipe: {output}; its first lines say what to set")
