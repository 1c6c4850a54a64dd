"""Reads lists of data sets: delimited text, every problem with its file and line."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO, TypeVar

from m2dx.contract.errors import AudioError

T = TypeVar("T")

_MOST_PROBLEMS = 10  # of one file, in one error


def read_table(
    path: Path,
    parse: Callable[[dict[str, str]], T | None],
    *,
    columns: Sequence[str] = (),
    header: Sequence[str] | None = None,
    delimiter: str = ",",
    comment: str | None = None,
) -> list[T]:
    """What `parse` makes of each row of a delimited UTF-8 file, in its order.

    `parse` gets a row's cells by column, without the space around them, "" for those that the line lacks; it gives
    None for a row to leave out, and raises ValueError for one that is wrong. `columns` must be in the header line;
    `header` names the columns of a file without one; blank lines and those that start with `comment` are left out. A
    field is on one line: quotes are for delimiters in it.
    Raises `AudioError` for a file that cannot be read, or with `file:line: problem` for each wrong row (at most 10).
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _Table(path, file, header, delimiter, comment).rows(parse, columns)
    except OSError as error:
        raise AudioError(f"cannot read the list {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AudioError(f"the list {path} must be UTF-8 text, but is not ({error.reason})") from error


class _Table:
    """Lines as rows, one at a time: a quote that is not closed is an error of its own line, and swallows no others."""

    def __init__(
        self, path: Path, file: TextIO, header: Sequence[str] | None, delimiter: str, comment: str | None
    ) -> None:
        self.path, self.delimiter = path, delimiter
        self._lines = self._numbered(file, comment)
        self._header_line, names = (1, header) if header is not None else self._header()
        self._names = [name.strip() for name in names]

    def rows(self, parse: Callable[[dict[str, str]], T | None], columns: Iterable[str]) -> list[T]:
        self._check_header(columns)
        found: list[T] = []
        problems: list[str] = []
        for number, text in self._lines:
            try:
                row = parse(self._row(text))
            except ValueError as error:
                problems.append(f"{self.path}:{number}: {error}")
            else:
                if row is not None:
                    found.append(row)
        if problems:
            more = len(problems) - _MOST_PROBLEMS
            lines = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
            raise AudioError("\n".join(lines))
        return found

    def _numbered(self, file: TextIO, comment: str | None) -> Iterator[tuple[int, str]]:
        """Lines that are neither blank nor comments, with their numbers."""
        for number, text in enumerate(file, start=1):
            if text.strip() and (comment is None or not text.lstrip().startswith(comment)):
                yield number, text

    def _header(self) -> tuple[int, Sequence[str]]:
        number, text = next(self._lines, (1, ""))
        try:
            return number, self._cells(text)
        except ValueError as error:
            raise AudioError(f"{self.path}:{number}: {error}") from error

    def _check_header(self, columns: Iterable[str]) -> None:
        place, there = f"{self.path}:{self._header_line}", ", ".join(self._names)
        absent = [f"`{column}`" for column in columns if column not in self._names]
        if absent:
            what = "a column" if len(absent) == 1 else "columns"
            raise AudioError(f"{place}: there must be {what} {', '.join(absent)}, but there are: {there}")
        if len(set(self._names)) < len(self._names):
            raise AudioError(f"{place}: no column may come twice, but there are: {there}")

    def _cells(self, text: str) -> list[str]:
        # An inch sign, or a quote that is not closed: strict reading tells.
        odd_quotes = bool(text.count('"') % 2)
        tabs = self.delimiter == "\t"
        reader = csv.reader([text], delimiter=self.delimiter, skipinitialspace=not tabs, strict=odd_quotes)
        try:
            return next(reader, [])
        except csv.Error as error:
            hint = "; is a quote not closed?" if odd_quotes else ""
            raise ValueError(f"not valid CSV ({error}){hint}") from error

    def _row(self, text: str) -> dict[str, str]:
        cells = self._cells(text)
        if len(cells) > len(self._names):
            raise ValueError(
                f"more fields than columns ({len(cells)} for {len(self._names)}); "
                "a field with a comma needs quotes"
            )
        return dict(itertools.zip_longest(self._names, (cell.strip() for cell in cells), fillvalue=""))
