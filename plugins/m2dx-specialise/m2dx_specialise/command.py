"""`m2dx specialise`: arguments, what it asks, and how it ends."""

from __future__ import annotations

import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from m2dx_specialise.listing import Listing

commands = typer.Typer(add_completion=False)


@commands.command()
def specialise(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder or list (.csv, .tsv) of recordings.")],
    labels: Annotated[Path | None, typer.Option(help="List with the labels of a folder's files.")] = None,
    starts: Annotated[
        list[str] | None, typer.Option("--start", help="Encoder at hand, several times; default starter.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time that all takes, about.")] = 60.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder; default specialised/NAME.")
    ] = None,
    label_from: Annotated[
        str | None, typer.Option(help="Where labels are from, as column:NAME, folder:1, name:2, none.")
    ] = None,
    group_from: Annotated[str | None, typer.Option(help="Where groups are from, likewise.")] = None,
    general: Annotated[Path | None, typer.Option(help="Recordings of everything, to train on, too.")] = None,
    noise: Annotated[Path | None, typer.Option(help="Background noise to mix in.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take what is found; ask nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the folder.")] = False,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Print what would run, how long.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is random.")] = 0,
) -> None:
    """Find out whether a specialised encoder is worth it for recordings, and train it."""
    from m2dx.cli.shared import terminal
    from m2dx_specialise.state import STARTER, STATE_FILE, Request

    console = terminal()
    request = Request(
        data=data, labels=labels, label_from=label_from, group_from=group_from,
        starts=tuple(starts or (STARTER,)), general=general, noise=noise, minutes=minutes, seed=seed,
    )  # fmt: skip
    request.check()
    console.print(f"reading {data}")
    with console.status("loading m2dx"):
        from m2dx_specialise import search
        from m2dx_specialise.training import Stopped

    folder = output or request.folder
    try:
        if plan_only:
            from m2dx_specialise.plan import print_plan

            print_plan(request, console)
            return
        ask = partial(_ask, console=console, yes=yes)
        search.specialise(request, output=folder, resume=resume, console=console, ask=ask)
    except (Stopped, KeyboardInterrupt) as stopped:
        by = stopped.signal if isinstance(stopped, Stopped) else "SIGINT"
        if not plan_only and (folder / STATE_FILE).exists():
            again = [word for word in sys.argv[1:] if word != "--resume"]
            console.print(f"\nstopped by {by}; what was found is saved. Go on with:")
            console.print(f"  {shlex.join(['m2dx', *again, '--resume'])}", soft_wrap=True)
        raise typer.Exit(128 + int(getattr(signal, by, signal.SIGTERM))) from None


def _ask(listing: Listing, *, console: Console, yes: bool) -> tuple[str | None, str | None] | None:
    """Shows what was found; asks on a terminal whether it is right. RecipeError where nobody can be asked."""
    import m2dx
    from m2dx.contract.wording import counted
    from m2dx_specialise.names import NONE, same

    console.print(f"  {listing.sentence}")
    for note in listing.notes:
        console.print(f"  note: {note}")
    if listing.bad:
        console.print(
            f"  note: {counted(len(listing.bad), 'file')} cannot be read, such as {listing.bad[0][0]}"
        )
    if yes:
        return None
    now = {"label": listing.label, "group": listing.group}
    chosen = {what: choice.key if choice else NONE for what, choice in now.items()}
    others: list[tuple[str, str]] = []
    lines = []
    for what, choices in (("label", listing.labels), ("group", listing.groups)):
        # what divides the clips as the labels do is no other choice
        known = [choice.values for choice in (listing.label, now[what]) if choice]
        new = [of for of in choices if not any(same(of.values, values) for values in known)]
        sentences = {of.key: f"{what}s from {of.sentence}" for of in new}
        sentences |= {NONE: f"no {what}s"} if chosen[what] != NONE else {}
        for key, sentence in sentences.items():
            others.append((what, key))
            lines.append(f"  {len(others)}: {sentence}")
    if lines:
        console.print("\n".join(["what else it could be:", *lines]))
    if not console.is_terminal:
        raise m2dx.RecipeError(
            "what was found must be agreed to, and nobody can be asked here; add --yes, or --label-from KEY and "
            f"--group-from KEY (now {chosen['label']} and {chosen['group']}) with --yes"
        )
    while True:
        console.print("Enter if it is right, a number to change it, q to quit:", end=" ")
        answer = console.input().strip().lower()
        if answer in ("", "y", "yes"):
            return None
        if answer in ("q", "n", "no", "quit"):
            raise typer.Exit(1)
        if answer.isdecimal() and 0 < int(answer) <= len(others):
            what, key = others[int(answer) - 1]
            return (key, None) if what == "label" else (None, key)
        console.print(f"  {answer!r} is none of the numbers")
