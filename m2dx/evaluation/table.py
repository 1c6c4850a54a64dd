"""Scores as a table: encoders by task and protocol."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from m2dx.components import Score
from m2dx.evaluation.runner import EncoderScore

Column = tuple[str, str, str]  # task, protocol, metric


def score_table(scores: Sequence[EncoderScore], *, title: str | None = None) -> Table:
    """A rich table in percent with 95 % intervals; the best mean of each column is bold."""
    columns, rows = _arrange(scores)
    best = {column: max(row[column].mean for row in rows.values() if column in row) for column in columns}
    table = Table(title=title)
    table.add_column("encoder", no_wrap=True)
    for column in columns:
        table.add_column(Text("\n".join(column)), justify="right")  # three lines, to be narrow
    for encoder, row in rows.items():
        cells = [
            Text(
                _cell(row.get(column)),
                style="bold" if column in row and row[column].mean == best[column] else "",
            )
            for column in columns
        ]
        table.add_row(Text(encoder), *cells)
    return table


def markdown_table(scores: Sequence[EncoderScore]) -> str:
    """The same table as Markdown, which is also its plain-text form."""
    columns, rows = _arrange(scores)
    cells = [["encoder", *map(_heading, columns)]]
    cells += [[encoder, *(_cell(row.get(column)) for column in columns)] for encoder, row in rows.items()]
    widths = [max(len(line[number]) for line in cells) for number in range(len(cells[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    head = [
        cells[0][0].ljust(widths[0]),
        *(text.rjust(width) for text, width in zip(cells[0][1:], widths[1:], strict=True)),
    ]
    body = [
        [
            line[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)),
        ]
        for line in cells[1:]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *body]) + "\n"


def _arrange(scores: Sequence[EncoderScore]) -> tuple[list[Column], dict[str, dict[Column, Score]]]:
    rows: dict[str, dict[Column, Score]] = {}
    columns: dict[Column, None] = {}
    for entry in scores:
        column = (entry.score.task, entry.score.protocol, entry.score.metric)
        columns[column] = None
        rows.setdefault(entry.encoder, {})[column] = entry.score
    return list(columns), rows


def _heading(column: Column) -> str:
    task, protocol, metric = column
    return f"{task}, {protocol} ({metric})"


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{100 * score.mean:.1f}" + ("" if score.ci95 is None else f" ± {100 * score.ci95:.1f}")
