"""`m2dx push`: arguments only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from m2dx.contract.package import find_encoder

commands = typer.Typer(add_completion=False)


Text = str | None


@commands.command()
def push(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=find_encoder, help="An export, or a run's folder.")
    ],
    address: Annotated[str, typer.Argument(metavar="hf://USER/NAME")],
    licence: Annotated[Text, typer.Option(help="Of these weights, as the Hub names it: mit, ...")] = None,
    data_licence: Annotated[Text, typer.Option(help="Of the recordings that it learned from.")] = None,
    start_licence: Annotated[
        Text, typer.Option(help="Of the weights that the training started from.")
    ] = None,
    untested: Annotated[Text, typer.Option(help="What it was not tested on.")] = None,
    run: Annotated[Path | None, typer.Option(help="Whose scores the card has; default FOLDER's.")] = None,
    new_card: Annotated[bool, typer.Option("--new-card", help="Write over the README.md there.")] = False,
    card_only: Annotated[bool, typer.Option("--card-only", help="Write README.md alone.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
) -> None:
    """Push an encoder to the Hub, with a card that is written from its run."""
    import m2dx
    from m2dx.contract.atomic import replace_text
    from m2dx.encoder.audio import load_any_encoder
    from m2dx_hub.card import Stated, card_of, run_of
    from m2dx_hub.repository import parse, push

    export = folder if (folder / "config.json").is_file() else folder / "encoder"
    if not (export / "config.json").is_file():
        raise m2dx.CheckpointError(
            f"{folder}: must be an export, or the folder of a run that has ended; `m2dx export {folder} DIR` makes an "
            "export of a checkpoint"
        )
    load_any_encoder(export)  # what others could not load is not pushed
    sha256 = json.loads((export / "config.json").read_text(encoding="utf-8")).get("sha256")
    repo, _ = parse(address)
    card = export / "README.md"
    if new_card or not card.exists():
        stated = Stated(licence, data_licence, start_licence, untested)
        replace_text(card, card_of(export, run_of(export, run), repo, stated))
        typer.echo(f"card: {card}")
    elif (
        others := re.findall(r"\b[0-9a-f]{64}\b", card.read_text(encoding="utf-8"))
    ) and sha256 not in others:
        raise m2dx.CheckpointError(
            f"{card} must be of this encoder, but has the SHA-256 of another one; --new-card writes it anew"
        )
    else:
        typer.echo(f"card: {card}, as it is (--new-card writes it anew)")
    if not card_only:
        typer.echo(f"encoder: {push(export, address, private=private)}")
