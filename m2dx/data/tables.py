"""Reads lists of data sets: delimited text, every problem with its file and line."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from m2dx.contract.errors import AudioError
from m2dx.contract.paths import check_regular

T = TypeVar("T")

_MARKS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_EMPTY = re.compile(r'(?:[\s,;|]|"")*')  # a line that has no cell, as spreadsheets end with
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
    `header` names the columns of a file without one; empty lines, also of delimiters alone, and those that start with
    `comment` are left out. A field is on one line: quotes are for delimiters in it.
    Raises `AudioError` for a file that cannot be read, or with `file:line: problem` for each wrong row (at most 10).
    """
    table = Table.read(path, header=header, delimiter=delimiter, comment=comment, encodings=("utf-8-sig",))
    there = ", ".join(table.names)
    absent = [f"`{column}`" for column in columns if column not in table.names]
    if absent:
        what = "a column" if len(absent) == 1 else "columns"
        raise AudioError(f"{table.place}: there must be {what} {', '.join(absent)}, but there are: {there}")
    return table.rows(parse)


class Table:
    """Lines as rows, one at a time: a quote that is not closed is an error of its own line, and swallows no others."""

    def __init__(
        self, path: Path, text: str, header: Sequence[str] | None, delimiter: str | None, comment: str | None
    ) -> None:
        self.path, self.delimiter = path, delimiter or ","
        self.notes: list[str] = []
        """What the text was taken for, where that is not UTF-8."""
        self._lines: Iterator[tuple[int, str]] = (
            (number, line)
            for number, line in enumerate(io.StringIO(text, newline=""), start=1)
            if not _EMPTY.fullmatch(line) and (comment is None or not line.lstrip().startswith(comment))
        )
        number = 1
        if header is None:
            number, line = next(self._lines, (1, ""))
            if not line:
                raise AudioError(f"the list {path} is empty; it must have a header and a line for each clip")
            if delimiter is None and (told := re.fullmatch(r"sep=([,;\t|])\s*", line.lower())):
                self.delimiter = delimiter = told[1]  # as spreadsheets write it
                number, line = next(self._lines, (1, ""))
            if delimiter is None:
                self.delimiter = max(_MARKS, key=line.count)
            try:
                header = self._cells(line)
            except ValueError as error:
                raise AudioError(f"{path}:{number}: {error}") from error
        self.place = f"{path}:{number}"
        """File and line of the header."""
        self.names = [name.strip() for name in header]
        """Names of the columns, which differ; some may be empty."""
        named = list(filter(None, self.names))
        if len(set(named)) < len(named):
            raise AudioError(
                f"{self.place}: no column may come twice, but there are: {', '.join(self.names)}"
            )

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        header: Sequence[str] | None = None,
        delimiter: str | None = ",",
        comment: str | None = None,
        encodings: Sequence[str] = ("utf-8-sig", "utf-16", "cp1252"),
    ) -> Table:
        """A table from a file, in the first of the encodings that fits (UTF-16 needs its mark). Raises `AudioError`.

        `delimiter` None: the comma, semicolon, tab or bar that the header has most of.
        """
        try:
            check_regular(path)
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            raise AudioError(f"cannot read the list {path}: {reason}") from error
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        reasons = []
        for encoding in encodings:
            if encoding == "utf-16" and not marked:
                continue
            try:
                table = cls(path, data.decode(encoding), header, delimiter, comment)
            except UnicodeDecodeError as error:
                reasons.append(error.reason)
            else:
                table.notes += [f"is no UTF-8 text; read as {encoding}"] if reasons else []
                return table
        raise AudioError(f"the list {path} must be UTF-8 text, but is not ({reasons[0]})")

    def rows(self, parse: Callable[[dict[str, str]], T | None]) -> list[T]:
        """What `parse` makes of each row, once. Raises `AudioError` with a line for each wrong row."""
        found: list[T] = []
        problems: list[str] = []
        for number, line in self._lines:
            try:
                row = parse(self._row(line))
            except ValueError as error:
                problems.append(f"{self.path}:{number}: {error}")
            else:
                if row is not None:
                    found.append(row)
        if problems:
            more = len(problems) - _MOST_PROBLEMS
            problems[_MOST_PROBLEMS:] = [f"and {more} more"] if more > 0 else []
            raise AudioError("\n".join(problems))
        return found

    def _cells(self, line: str) -> list[str]:
        # An inch sign, or a quote that is not closed: strict reading tells.
        odd_quotes = bool(line.count('"') % 2)
        tabs = self.delimiter == "\t"
        reader = csv.reader([line], delimiter=self.delimiter, skipinitialspace=not tabs, strict=odd_quotes)
        try:
            return next(reader, [])
        except csv.Error as error:
            hint = "; is a quote not closed?" if odd_quotes else ""
            raise ValueError(f"not valid CSV ({error}){hint}") from error

    def _row(self, line: str) -> dict[str, str]:
        cells = self._cells(line)
        if len(cells) > len(self.names):
            counts = f"{len(cells)} for {len(self.names)}"
            mark = _MARKS.get(self.delimiter, self.delimiter)
            raise ValueError(f"more fields than columns ({counts}); a field with a {mark} needs quotes")
        return dict(itertools.zip_longest(self.names, (cell.strip() for cell in cells), fillvalue=""))
