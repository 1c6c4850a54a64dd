"""`m2dx specialise`: arguments, what it asks, and how it ends."""

from __future__ import annotations

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
    general: Annotated[
        Path | None, typer.Option(help="Recordings of everything, to keep beside the domain's.")
    ] = None,
    noise: Annotated[Path | None, typer.Option(help="Background noise to mix in.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take what is found; ask nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the folder.")] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Print what would run, and how long.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is random.")] = 0,
) -> None:
    """Find out whether a specialised encoder is worth it for recordings, and train it."""
    import signal

    from m2dx.cli.shared import terminal
    from m2dx_specialise.state import STARTER, Request

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

    if plan_only:
        from m2dx_specialise.plan import print_plan

        print_plan(request, console)
        return
    try:
        ask = partial(_ask, console=console, yes=yes)
        search.specialise(request, output=output, resume=resume, console=console, ask=ask)
    except Stopped as stopped:
        _stopped(console, stopped.signal)
        raise typer.Exit(128 + int(getattr(signal, stopped.signal, signal.SIGTERM))) from None
    except KeyboardInterrupt:
        _stopped(console, "SIGINT")
        raise typer.Exit(130) from None


def _stopped(console: Console, signal: str) -> None:
    import shlex
    import sys

    again = [word for word in sys.argv[1:] if word != "--resume"]
    console.print(f"stopped by {signal}; what was found is saved. Go on with:")
    console.print(f"  {shlex.join(['m2dx', *again, '--resume'])}", soft_wrap=True)


def _ask(listing: Listing, *, console: Console, yes: bool) -> tuple[str | None, str | None] | None:
    """Shows what was found; asks on a terminal whether it is right. RecipeError where nobody can be asked."""
    import m2dx

    console.print(f"  {listing.proposal.sentence}")
    for note in listing.notes:
        console.print(f"  note: {note}")
    if yes:
        return None
    proposal = listing.proposal
    chosen = {
        "label": proposal.label.key if proposal.label else "none",
        "group": proposal.group.key if proposal.group else "none",
    }
    others = [
        (what, choice.key, choice.sentence)
        for what, choices in listing.alternatives.items()
        for choice in choices
    ]
    others += [(what, "none", "none") for what, key in chosen.items() if key != "none"]
    for number, (what, _, sentence) in enumerate(others, 1):
        console.print(f"  {number}: {what} from {sentence}")
    if not console.is_terminal:
        raise m2dx.RecipeError(
            "what was found must be agreed to, and nobody can be asked here; add --yes, or --label-from KEY and "
            f"--group-from KEY (now {chosen['label']} and {chosen['group']}) with --yes"
        )
    answer = console.input("Enter to go on, a number to change it, q to quit: ").strip().lower()
    if answer in ("", "y", "yes"):
        return None
    if answer in ("q", "n", "no", "quit"):
        raise typer.Exit(1)
    if not answer.isdecimal() or not 0 < int(answer) <= len(others):
        console.print(f"  {answer!r} is none of the numbers")
        return chosen["label"], chosen["group"]
    what, key, _ = others[int(answer) - 1]
    chosen[what] = key
    return chosen["label"], chosen["group"]
