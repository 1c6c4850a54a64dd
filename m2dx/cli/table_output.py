"""What commands that print a table share: the options for its format, and the output in that format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m2dx.cli.shared import terminal
from m2dx.cli.terminal import printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from m2dx.results.table import ResultTable


TableFormat = Literal["rich", "markdown", "latex", "csv"]
"""How a table is written."""
FormOption = Annotated[
    TableFormat | None, typer.Option("--format", help="Default by OUTPUT's suffix, else rich on a terminal.")
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="File to write or replace.")]


def check_table_options(form: TableFormat | None, output: Path | None) -> None:
    """A usage error if a file is to have the terminal's format."""
    if output is not None and form == "rich":
        raise typer.BadParameter("--format rich is for the terminal; a file is markdown, latex or csv")


def print_table(shown: ResultTable, form: TableFormat | None, output: Path | None) -> None:
    """Prints a table, or writes it to a file, in the format of the options."""
    from m2dx.results.formats import SUFFIXES, WRITERS
    from m2dx.results.formats import terminal as terminal_parts

    if form is None and output is None and terminal().is_terminal:
        form = "rich"
    if form == "rich":
        for part in terminal_parts(shown, terminal().width):
            terminal().print(part)
        return
    suffix = "" if output is None else output.suffix.lower()
    text = WRITERS[form or SUFFIXES.get(suffix, "markdown")](shown)
    if output is None:
        typer.echo(printable(text), nl=False)
    else:
        output.write_bytes(text.encode("utf-8", "backslashreplace"))  # names may hold bytes that are not text
        terminal().print(f"table: {output}")


def text_table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table of rows of text; cells take as many lines as they need."""
    from rich.table import Column, Table

    table = Table(*(Column(title, overflow="fold") for title in headings))
    for row in rows:
        table.add_row(*row)
    return table
