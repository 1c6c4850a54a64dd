"""Scores as a table: a row for each task and protocol, a column for each encoder."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from m2dx.contract.components import Score

Row = tuple[str, str, str]  # task, protocol, metric


def score_table(scores: Sequence[Score], *, title: str | None = None) -> Table:
    """A rich table in percent with 95 % intervals; the best mean of each row is bold."""
    encoders, rows = _arrange(scores)
    table = Table(title=title)
    table.add_column("task")
    table.add_column("protocol")
    for encoder in encoders:
        table.add_column(Text(encoder), justify="right")
    for (task, protocol, metric), found in rows.items():
        best = max(score.mean for score in found.values())
        cells = [
            Text(
                _cell(found.get(encoder)),
                style="bold" if encoder in found and found[encoder].mean == best else "",
            )
            for encoder in encoders
        ]
        table.add_row(Text(task), Text(f"{protocol} ({metric})"), *cells)
    return table


def markdown_table(scores: Sequence[Score]) -> str:
    """The same table as Markdown, which is also its plain-text form."""
    encoders, rows = _arrange(scores)
    cells = [["task, protocol", *encoders]]
    for (task, protocol, metric), found in rows.items():
        cells.append([f"{task}, {protocol} ({metric})", *(_cell(found.get(encoder)) for encoder in encoders)])
    widths = [max(len(line[number]) for line in cells) for number in range(len(cells[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [
            line[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)),
        ]
        for line in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]]) + "\n"


def _arrange(scores: Sequence[Score]) -> tuple[list[str], dict[Row, dict[str, Score]]]:
    """The encoders, and each row's scores by encoder, both in the order in which they come."""
    encoders = list(dict.fromkeys(score.encoder for score in scores))
    rows: dict[Row, dict[str, Score]] = {}
    for score in scores:
        row = (score.task, score.protocol, score.metric)
        rows.setdefault(row, {})[score.encoder] = score
    return encoders, rows


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{100 * score.mean:.1f}" + ("" if score.ci95 is None else f" ± {100 * score.ci95:.1f}")
