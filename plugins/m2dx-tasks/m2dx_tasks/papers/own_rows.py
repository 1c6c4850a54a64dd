"""The rows of a published table that records make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from m2dx.results import Cell, EncoderKey, Marks, ResultRecord, Row, encoder_key, newest_first
from m2dx_tasks.papers.comparability import plain, reasons, split_metric
from m2dx_tasks.papers.published import PaperColumn, PaperTable

TaskMetric = tuple[str, str]  # key of a paper's task, metric
RowKey = tuple[EncoderKey, str, str, int]  # encoder, name of the protocol, remark of the metric, number


@dataclass(frozen=True)
class OwnRows:
    """Rows, and the records that are in none of them."""

    rows: tuple[Row, ...]
    elsewhere: tuple[ResultRecord, ...]  # the table has no column for their task or metric
    partial: tuple[ResultRecord, ...]  # of columns that are means over several tasks, some of which lack


@dataclass(frozen=True)
class _Draft:
    """A row that others may be merged into."""

    encoder: EncoderKey
    protocols: tuple[str, ...]  # their names
    evaluators: frozenset[str]
    remark: str
    number: int  # 1: the newest records
    parameters: int | None
    cells: tuple[Cell | None, ...]

    def fits(self, other: _Draft) -> bool:
        """Whether both are one encoder's, by evaluators that fill different columns."""
        return (
            (self.encoder, self.remark, self.number) == (other.encoder, other.remark, other.number)
            and self.evaluators.isdisjoint(other.evaluators)
            and all(a is None or b is None for a, b in zip(self.cells, other.cells, strict=True))
        )

    def merged(self, other: _Draft) -> _Draft:
        return _Draft(
            self.encoder,
            self.protocols + other.protocols,
            self.evaluators | other.evaluators,
            self.remark,
            self.number,
            self.parameters or other.parameters,
            tuple(a or b for a, b in zip(self.cells, other.cells, strict=True)),
        )


def own_rows(
    table: PaperTable, records: Sequence[ResultRecord], labels: Mapping[EncoderKey, str], marks: Marks
) -> OwnRows:
    """A row per encoder and protocol, in the order of the encoders; more rows where a column has several records.

    Protocols that fill different columns, as SUPERB and linear evaluation in table X, share a row.
    """
    placed, elsewhere = _placed(table, records)
    drafts: list[_Draft] = []
    partial: list[ResultRecord] = []
    for key, row in placed.items():
        draft = _draft(table, key, row, marks)
        if not any(draft.cells):
            partial += row.values()
            continue
        host = next((number for number, other in enumerate(drafts) if other.fits(draft)), None)
        if host is None:
            drafts.append(draft)
        else:
            drafts[host] = drafts[host].merged(draft)
    return OwnRows(tuple(_row(table, draft, labels) for draft in drafts), tuple(elsewhere), tuple(partial))


def _placed(
    table: PaperTable, records: Sequence[ResultRecord]
) -> tuple[dict[RowKey, dict[TaskMetric, ResultRecord]], list[ResultRecord]]:
    placed: dict[RowKey, dict[TaskMetric, ResultRecord]] = {}
    elsewhere = []
    for record in newest_first(records):
        metric, remark = split_metric(record.metric)
        places = {
            (task, metric)
            for column in table.columns
            for task in column.tasks
            if _is_of(record, column, task)
        }
        for place in sorted(places):
            for number in count(1):
                key = (encoder_key(record), record.protocol.name, remark, number)
                row = placed.setdefault(key, {})
                if place not in row:
                    row[place] = record
                    break
        if not places:
            elsewhere.append(record)
    order = {key: number for number, key in enumerate(dict.fromkeys(map(encoder_key, records)))}
    return dict(sorted(placed.items(), key=lambda entry: (order[entry[0][0]], entry[0][1:]))), elsewhere


def _is_of(record: ResultRecord, column: PaperColumn, task: str) -> bool:
    names = {plain(name) for name in column.tasks[task].names}
    named = {plain(record.task), plain(record.dataset or "")}
    return not names.isdisjoint(named) and plain(split_metric(record.metric)[0]) in _metrics(column, task)


def _metrics(column: PaperColumn, task: str) -> set[str]:
    return {plain(name) for name in column.metrics_of(task)}


def _draft(table: PaperTable, key: RowKey, row: Mapping[TaskMetric, ResultRecord], marks: Marks) -> _Draft:
    encoder, protocol, remark, number = key
    return _Draft(
        encoder,
        (protocol,),
        frozenset(record.protocol.evaluator for record in row.values()),
        remark,
        number,
        next(iter(row.values())).encoder.parameters,
        tuple(_cell(table, column, row, marks) for column in table.columns),
    )


def _cell(
    table: PaperTable, column: PaperColumn, row: Mapping[TaskMetric, ResultRecord], marks: Marks
) -> Cell | None:
    """A record's score, or the mean over the column's tasks where all have one."""
    found: dict[str, ResultRecord] = {}
    for (task, metric), record in row.items():
        if task in column.tasks and plain(metric) in _metrics(column, task):
            found[task] = record
    if len(found) < len(column.tasks):
        return None
    letters = marks.of(*(text for task, record in found.items() for text in reasons(record, column, task)))
    if len(found) == 1:
        (record,) = found.values()
        return Cell.percent(record.mean, record.ci95, decimals=table.decimals, marks=letters)
    mean = sum(record.mean for record in found.values()) / len(found)
    return Cell.percent(mean, None, decimals=table.decimals, marks=letters)


def _row(table: PaperTable, draft: _Draft, labels: Mapping[EncoderKey, str]) -> Row:
    age = {1: "", 2: "older"}.get(draft.number, f"older ({draft.number - 1})")
    parts = (labels[draft.encoder], " + ".join(draft.protocols), draft.remark, age)
    info = {} if draft.parameters is None else {"# Params": f"{draft.parameters / 1e6:.1f}M"}
    return Row(
        ", ".join(part for part in parts if part),
        tuple(info.get(name, "") for name in table.info),
        draft.cells,
    )
