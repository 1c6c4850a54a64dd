"""What `m2dx results` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m2dx.contract.errors import M2dxError
from m2dx.contract.wording import counted, suggestion
from m2dx.results.published import PublishedTable, published_tables
from m2dx.results.records import RESULTS_FILE, read_records
from m2dx.results.table import ResultTable, record_table

DEFAULT_FILE = Path("runs") / RESULTS_FILE
"""The file of records below the default `output` of recipes."""
MOST_BROKEN = 10
"""Broken lines that are shown one by one."""


def table_lines() -> list[str]:
    """The published tables of all installed packages: source, title, and the names of their tasks in recipes."""
    lines = [line for table in published_tables().values() for line in table.about()]
    return lines or ["there are no published tables; install m2dx-tasks, which has those of the papers"]


def results_table(
    files: Sequence[Path], *, key: str | None = None, every: bool = False
) -> tuple[ResultTable, list[str]]:
    """The records of files (default `runs/results.jsonl`), beside a published table if a key is given; and warnings.

    Raises M2dxError if there is no such table, a file cannot be read, or no file has a record.
    """
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
    return table(found.records, every=every), warnings


def _published(key: str) -> PublishedTable:
    tables = published_tables()
    if key not in tables:
        hint = "`--table list` lists them all"
        hint = hint if tables else "install m2dx-tasks, which has those of the papers"
        raise M2dxError(f"there is no published table {key!r}; {suggestion(key, tables)} {hint}")
    return tables[key]
