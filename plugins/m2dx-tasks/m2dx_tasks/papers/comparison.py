"""The rows of a published table, and those that one's own records make below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from m2dx.results import (
    PERCENT,
    Group,
    Marks,
    ResultRecord,
    ResultTable,
    Row,
    encoder_labels,
    left_out,
    newest,
)
from m2dx_tasks.papers.own_rows import OwnRows, own_rows
from m2dx_tasks.papers.published import PaperProtocol, PaperRow, PaperTable, load_table

OWN = "Measured with m2dx"


@dataclass(frozen=True)
class Comparison:
    """The published table of a key, as `m2dx results` takes it; the table is read when it is asked for."""

    key: str

    def about(self) -> list[str]:
        """Key, source, title, and the names that its tasks have in recipes."""
        table = load_table(self.key)
        return [
            f"{self.key}: {table.source}. {table.title}",
            f"    tasks: {', '.join(table.task_names().values())}",
        ]

    def beside(self, records: Sequence[ResultRecord], *, every: bool = False) -> ResultTable:
        """See `paper_table`."""
        return paper_table(load_table(self.key), records, every=every)


def paper_table(table: PaperTable, records: Sequence[ResultRecord], *, every: bool = False) -> ResultTable:
    """The rows of a published table, and the records of its tasks as rows below them.

    A row per encoder and protocol; `every` gives older records rows of their own. Each mark says what is to be
    known where a score is compared with the column above it.
    """
    shown = list(records) if every else newest(records)
    marks = Marks()
    own = own_rows(table, shown, encoder_labels(records), marks)
    published = [
        Group(name, tuple(_paper_row(table, row) for row in rows))
        for name, rows in groupby(table.rows, key=lambda row: row.group)
    ]
    notes = [f"Published rows: {table.source}. {PERCENT}"]
    notes += [f"{sign} {text}" for sign, text in table.footnotes.items()]
    notes += [f"Left out of the published rows: {text}." for text in table.left_out]
    for protocol in _protocols(table, own.rows):
        notes += [f"All scores of m2dx, {protocol.title}: {text}." for text in protocol.differences]
    return ResultTable(
        title=table.title,
        heading="model",
        info=table.info,
        columns=tuple(column.name for column in table.columns),
        groups=(*published, *([Group(OWN, own.rows)] if own.rows else [])),
        marks=marks.meanings(),
        notes=(*notes, *left_out(records, shown), *_not_shown(table, own)),
    )


def _protocols(table: PaperTable, rows: Sequence[Row]) -> list[PaperProtocol]:
    """The protocols of the columns that the rows fill, in order."""
    filled = [
        column.protocol
        for number, column in enumerate(table.columns)
        if any(row.cells[number] is not None for row in rows)
    ]
    return list({protocol.title: protocol for protocol in filled}.values())


def _paper_row(table: PaperTable, row: PaperRow) -> Row:
    info = tuple(row.info.get(name, "") for name in table.info)
    return Row(row.label, info, tuple(row.cells.get(column.name) for column in table.columns))


def _not_shown(table: PaperTable, own: OwnRows) -> list[str]:
    notes = []
    for what, records in (
        ("Records of tasks or metrics that this table does not have", own.elsewhere),
        ("Records of columns that are means over several tasks, of which others lack", own.partial),
    ):
        if records:
            tasks = Counter(f"{record.task} ({record.metric})" for record in records)
            notes.append(f"{what}: {', '.join(f'{task}: {number}' for task, number in tasks.items())}.")
    if not own.rows:
        listed = ", ".join(f"{title}: {name}" for title, name in table.task_names().items())
        notes.append(f"No record fills a column of this table. Its tasks' names in recipes: {listed}.")
    return notes
