"""Records as a table of scores, and what tables choose of them: the newest, under names that tell encoders apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from m2dx.contract.wording import counted
from m2dx.results.records import ResultRecord
from m2dx.results.table import Cell, Group, Marks, ResultTable, Row

PERCENT = "In percent; ± is half of the 95 % confidence interval (of m2dx: Student's t over its values)."

EncoderKey = tuple[str, str]  # name, sha256


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
            (Cell.percent(record.mean, record.ci95, marks=marks.of(*record.warnings)),),
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
        notes=(PERCENT, *left_out(records, shown)),
    )


def encoder_key(record: ResultRecord) -> EncoderKey:
    """What makes an encoder one and the same: its name and its weights."""
    return record.encoder.name, record.encoder.sha256


def encoder_labels(records: Sequence[ResultRecord]) -> dict[EncoderKey, str]:
    """Names of encoders; with the start of the SHA-256 where several have one name."""
    by_name: dict[str, set[str]] = defaultdict(set)
    for record in records:
        by_name[record.encoder.name].add(record.encoder.sha256)
    return {
        (name, sha256): name if len(digests) == 1 else f"{name} ({sha256[:8]})"
        for name, digests in by_name.items()
        for sha256 in digests
    }


def newest_first(records: Sequence[ResultRecord]) -> list[ResultRecord]:
    """Records by date, the newest first; of those with one date, the last one."""
    return sorted(records, key=lambda record: record.date)[::-1]


def newest(records: Sequence[ResultRecord]) -> list[ResultRecord]:
    """The newest record per encoder, task, protocol (by name) and metric, in the order of the records."""
    kept: dict[tuple[object, ...], ResultRecord] = {}
    for record in newest_first(records):
        kept.setdefault((encoder_key(record), *_column_of(record)), record)
    chosen = {id(record) for record in kept.values()}
    return [record for record in records if id(record) in chosen]


def left_out(records: Sequence[ResultRecord], shown: Sequence[ResultRecord]) -> list[str]:
    """A note on the records that are not among those shown, if there are any."""
    number = len(records) - len(shown)
    return [f"Left out: {counted(number, 'older record')} of the same scores."] if number else []


def _column_of(record: ResultRecord) -> tuple[str, str, str]:
    return record.task, record.protocol.name, record.metric
