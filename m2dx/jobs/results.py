"""What `m2dx results` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m2dx.contract.errors import M2dxError
from m2dx.contract.wording import counted, suggestion
from m2dx.results.published import PublishedTable, published_tables
from m2dx.results.records import RESULTS_FILE, ResultRecord, encoder_key, read_records
from m2dx.results.table import ResultTable, record_table

DEFAULT_FILE = Path("runs") / RESULTS_FILE  # the file of records below the default `output` of recipes
MOST_BROKEN = 10  # broken lines that are shown one by one


def table_lines() -> list[str]:
    """The published tables of all installed packages: source, title, and the names of their tasks in recipes."""
    lines = [line for table in published_tables().values() for line in table.about()]
    return lines or ["there are no published tables; install m2dx-tasks, which has those of the papers"]


def results_table(
    files: Sequence[Path], *, key: str | None = None, metric: str | None = None, every: bool = False
) -> tuple[ResultTable, list[str]]:
    """The records of files (default `runs/results.jsonl`), beside a published table if a key is given; and warnings.

    `metric` shows another one than that of each record, such as auroc, of the records that have it. Raises M2dxError if
    there is no such table, a file cannot be read, or no file has a record, or one with the metric.
    """
    if key is not None and metric is not None:
        raise M2dxError("--metric is for m2dx's own table; published ones have theirs: leave one out")
    published = None if key is None else _published(key)
    given = list(files) or [DEFAULT_FILE]
    found = read_records(given)
    warnings = [f"{line}; the line is skipped" for line in found.broken[:MOST_BROKEN]]
    if found.broken:
        warnings.append(f"{counted(len(found.broken), 'line')} skipped; the files are left as they are")
    if not found.records:
        text = "\n".join([f"there are no records in {', '.join(map(str, given))}", *warnings])
        raise M2dxError(f"{text}\n`m2dx train` and `m2dx evaluate` append to that file of the folder of runs")
    table = record_table if published is None else published.beside
    records = found.records if metric is None else _by_metric(found.records, metric)
    return table(records, every=every), warnings


def _by_metric(records: Sequence[ResultRecord], metric: str) -> list[ResultRecord]:
    """The records that have a metric, with its value and half of its interval; one of each evaluation by a protocol."""
    found: dict[tuple[object, ...], ResultRecord] = {}
    known = dict[str, None]()
    for record in records:
        metrics: Any = record.details.get("metrics", {})
        known |= dict.fromkeys(metrics)
        entry = metrics.get(metric, {"value": None})
        # An evaluator may record several scores, all with the metrics of the same predictions.
        key = encoder_key(record), record.task, record.protocol.name, record.date
        if record.metric == metric:
            found[key] = record
        elif entry["value"] is not None:
            half = (entry["high"] - entry["low"]) / 2
            found.setdefault(key, replace(record, metric=metric, mean=entry["value"], ci95=half))
    if not found:
        have = f"have {', '.join(known)}" if known else "have no others than their own"
        raise M2dxError(f"no record has the metric {metric!r}; the records {have}")
    return list(found.values())


def _published(key: str) -> PublishedTable:
    tables = published_tables()
    if key not in tables:
        hint = "`--table list` lists them all"
        hint = hint if tables else "install m2dx-tasks, which has those of the papers"
        raise M2dxError(f"there is no published table {key!r}; {suggestion(key, tables)} {hint}")
    return tables[key]
