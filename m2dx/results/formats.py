"""Writers of a table of scores: terminal, Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from m2dx.results.table import NONE, Cell, ResultTable

WIDEST_LABEL = 36  # characters of the first column on a terminal; longer labels go over several lines

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"{{{sign}}}" for sign in "[]"},  # after a line break they would be an argument
    **{sign: f"\\text{name}{{}}" for sign, name in zip("<>|", ("less", "greater", "bar"), strict=True)},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "*": "$*$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "∪": r"$\cup$",
    "λ": r"$\lambda$",
    "η": r"$\eta$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "…": r"\ldots{}",
}


def markdown(table: ResultTable) -> str:
    """A title, a pipe table with a line per group, and what the marks mean."""
    return _TEMPLATES.get_template("table.md").render(table=table)


def latex(table: ResultTable) -> str:
    """A `table` environment with booktabs' rules, and what the marks mean below it."""
    return _TEMPLATES.get_template("table.tex").render(table=table)


def html_table(table: ResultTable) -> str:
    """A `table` element of the class "scores", without title, marks and notes; every text is escaped."""
    return _TEMPLATES.get_template("table.html").render(table=table)


def latex_text(text: str) -> str:
    """Text with what has a meaning in LaTeX escaped, and the signs of the tables as commands."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def comma_separated(table: ResultTable) -> str:
    """CSV with a line per score: group, row, what is known of it, column, mean and interval in percent, what marks it.

    Means and intervals have ten digits; an interval that is not known is empty. Notes are not part of it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", table.heading, *table.info, "column", "mean", "ci95", "marks"])
    for group in table.groups:
        for row in group.rows:
            for title, cell in zip(table.column_titles, row.cells, strict=True):
                if cell is not None:
                    ci95 = "" if cell.ci95 is None else f"{cell.ci95:.10g}"
                    why = "; ".join(table.marks[mark] for mark in cell.marks)
                    writer.writerow([group.name, row.label, *row.info, title, f"{cell.mean:.10g}", ci95, why])
    return out.getvalue()


def terminal(table: ResultTable, width: int) -> Iterator[Table | Text]:
    """The table and its notes, for a rich console of `width` characters.

    Where it is wider than that, blocks of its columns come one below the other, each after the first column.
    """
    title: str | None = table.title or None
    for widths in _blocks(_widths(table), width):
        yield _block(table, widths, title)
        title = None
    for mark, meaning in table.marks.items():
        yield Text(f"{mark}: {meaning}")
    for note in table.notes:
        yield Text(note, style="dim")


def _widths(table: ResultTable) -> list[tuple[int, int]]:
    """Of each column, the least width, which breaks no score and no word but long names, and the one without breaks."""
    rows = [(*row.texts, *map(_marked, row.cells)) for group in table.groups for row in group.rows]
    rows += [(group.name, *[""] * (len(table.headings) - 1)) for group in table.groups]
    found = []
    for number, (heading, *texts) in enumerate(zip(table.headings, *rows, strict=True)):
        is_score = number > len(table.info)
        words = [*heading.split(), *(texts if is_score else " ".join(texts).split())]
        least, whole = (max(map(cell_len, some), default=0) for some in (words, (heading, *texts)))
        found.append((least, whole) if is_score else (min(least, WIDEST_LABEL), min(whole, WIDEST_LABEL)))
    return found


def _blocks(widths: Sequence[tuple[int, int]], room: int) -> list[dict[int, int]]:
    """Columns that fit beside each other, the first one always among them, each with its width."""
    blocks: list[dict[int, int]] = [{}]
    for number, (least, _) in enumerate(widths):
        if len(blocks[-1]) > 1 and _spare({**blocks[-1], number: least}, room) < 0:
            blocks.append({0: widths[0][0]})
        blocks[-1][number] = least
    for block in blocks:
        for number in block:
            block[number] += max(0, min(widths[number][1] - block[number], _spare(block, room)))
    return blocks


def _spare(block: Mapping[int, int], room: int) -> int:
    return room - 1 - sum(width + 3 for width in block.values())  # with lines and blanks between the columns


def _block(table: ResultTable, widths: Mapping[int, int], title: str | None) -> Table:
    """The columns that have a width."""
    shown = Table(title=Text(title) if title else None)
    for number, width in widths.items():
        justify: JustifyMethod = "right" if number > len(table.info) else "left"
        shown.add_column(Text(table.headings[number]), overflow="fold", width=width, justify=justify)
    for group in table.groups:
        shown.add_section()
        if group.name:
            shown.add_row(Text(group.name, style="italic"))
        for row in group.rows:
            scores = (
                Text(_marked(cell), style="bold" if cell and cell.is_best else "") for cell in row.cells
            )
            cells = (*map(Text, row.texts), *scores)
            shown.add_row(*(cells[number] for number in widths))
    return shown


WRITERS = {"markdown": markdown, "latex": latex, "csv": comma_separated}
"""What writes a table to a file, by the name of the format."""
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv"}


def _marked(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    return cell.text + (f" [{','.join(cell.marks)}]" if cell.marks else "")


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\|*_<])", r"\\\1", text)


TEMPLATING: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
"""How all templates are read."""
_TEMPLATES = Environment(
    loader=PackageLoader("m2dx.results"),
    autoescape=select_autoescape(["html"]),
    keep_trailing_newline=True,
    **TEMPLATING,
)
_TEMPLATES.filters |= {"markdown": _markdown_text, "latex": latex_text, "marked": _marked}
