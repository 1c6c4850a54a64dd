"""A table of scores, ready to be written in any format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A score in percent, and the marks of what is to be known where it is compared."""

    mean: float
    ci95: float | None  # half width of the 95 % confidence interval
    decimals: int = 1
    marks: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As it is printed, without the marks."""
        interval = "" if self.ci95 is None else f" ± {self.ci95:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}{interval}"


@dataclass(frozen=True)
class Row:
    """An encoder with its scores."""

    label: str
    info: tuple[str, ...]  # as many as the table's; empty where there is nothing to say
    cells: tuple[Cell | None, ...]  # as many as the table has columns; None: no score


@dataclass(frozen=True)
class Group:
    """Rows under a heading."""

    name: str  # empty: no heading
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ResultTable:
    """Scores in percent, by encoder and column."""

    title: str
    heading: str  # of the first column
    info: tuple[str, ...]  # headings of the columns that are not scores
    columns: tuple[str, ...]  # headings of the scores
    groups: tuple[Group, ...]
    marks: Mapping[str, str]  # what each mark means
    notes: tuple[str, ...]

    @property
    def width(self) -> int:
        """Columns in all."""
        return 1 + len(self.info) + len(self.columns)


class Marks:
    """Gives each explanation a letter: a, b, ..., z, aa, ab, ..."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def of(self, *texts: str) -> tuple[str, ...]:
        """The letters of explanations, in their order, each once."""
        letters = {self._letters.setdefault(text, self._next()) for text in texts}
        return tuple(sorted(letters, key=lambda letter: (len(letter), letter)))

    def meanings(self) -> dict[str, str]:
        """Letter -> explanation."""
        return {letter: text for text, letter in self._letters.items()}

    def _next(self) -> str:
        number, letters = len(self._letters) + 1, ""
        while number:
            number, rest = divmod(number - 1, 26)
            letters = chr(ord("a") + rest) + letters
        return letters
