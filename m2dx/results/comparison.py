"""Tables of records: beside the rows of a published table, or all records on their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from m2dx.contract.wording import counted
from m2dx.results.comparability import encoder_key, encoder_labels, newest
from m2dx.results.measured import Measured, measured_rows, record_cell
from m2dx.results.published import PaperProtocol, PaperRow, PaperTable
from m2dx.results.records import ResultRecord
from m2dx.results.table import Cell, Group, Marks, ResultTable, Row

OWN = "Measured with m2dx"
PERCENT = "In percent; ± is half of the 95 % confidence interval (of m2dx: Student's t over its values)."


def paper_table(table: PaperTable, records: Sequence[ResultRecord], *, every: bool = False) -> ResultTable:
    """The rows of a published table, and the records of its tasks as rows below them.

    A row per encoder and protocol; `every` gives older records rows of their own. Each mark says what is to be
    known where a score is compared with the column above it.
    """
    shown = list(records) if every else newest(records)
    marks = Marks()
    own = measured_rows(table, shown, encoder_labels(records), marks)
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
        notes=(*notes, *_older(records, shown), *_not_shown(table, own)),
    )


def record_table(records: Sequence[ResultRecord], *, every: bool = False) -> ResultTable:
    """All records, a row each, by task, protocol and metric; without `every`, the newest ones."""
    shown = list(records) if every else newest(records)
    labels, marks = encoder_labels(records), Marks()
    order = {key: number for number, key in enumerate(dict.fromkeys(map(_column_of, shown)))}
    rows = [
        Row(
            labels[encoder_key(record)],
            (
                record.task,
                record.protocol.name,
                record.metric,
                str(len(record.seeds)),
                *("" if value is None else f"{value:,}" for value in (record.clips, record.classes)),
                f"{record.date:%Y-%m-%d %H:%M}",
            ),
            (record_cell(record, marks.of(*record.warnings), 1),),
        )
        for record in sorted(shown, key=lambda record: order[_column_of(record)])
    ]
    return ResultTable(
        title=counted(len(shown), "score"),
        heading="encoder",
        info=("task", "protocol", "metric", "seeds", "clips", "classes", "date (UTC)"),
        columns=("score",),
        groups=(Group("", tuple(rows)),),
        marks=marks.meanings(),
        notes=(PERCENT, *_older(records, shown)),
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
    cells = [row.cells.get(column.name) for column in table.columns]
    return Row(
        row.label,
        tuple(row.info.get(name, "") for name in table.info),
        tuple(None if cell is None else Cell(cell.mean, cell.ci95, cell.decimals) for cell in cells),
    )


def _column_of(record: ResultRecord) -> tuple[str, str, str]:
    return record.task, record.protocol.name, record.metric


def _older(records: Sequence[ResultRecord], shown: Sequence[ResultRecord]) -> list[str]:
    number = len(records) - len(shown)
    return [f"Left out: {counted(number, 'older record')} of the same scores."] if number else []


def _not_shown(table: PaperTable, own: Measured) -> list[str]:
    notes = []
    for what, records in (
        ("Records of tasks or metrics that this table does not have", own.elsewhere),
        ("Records of columns that are means over several tasks, of which others lack", own.partial),
    ):
        if records:
            tasks = Counter(f"{record.task} ({record.metric})" for record in records)
            notes.append(f"{what}: {', '.join(f'{task}: {number}' for task, number in tasks.items())}.")
    if not own.rows:
        names = {task.title: task.names[0] for column in table.columns for task in column.tasks.values()}
        listed = ", ".join(f"{title}: {name}" for title, name in names.items())
        notes.append(f"No record fills a column of this table. Its tasks' names in recipes: {listed}.")
    return notes
