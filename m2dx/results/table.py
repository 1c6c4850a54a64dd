"""A table of scores, ready for every writer in `m2dx.results.formats`; comes without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, product
from string import ascii_lowercase
from typing import TYPE_CHECKING, Protocol

from m2dx.contract.wording import counted
from m2dx.results.records import ResultRecord, encoder_key, encoder_labels, left_out, newest, score_key

if TYPE_CHECKING:
    from m2dx.contract.components import Score

NONE = "-"  # where there is nothing to say
PERCENT = (
    "In percent; ± is half of the 95 % confidence interval (of m2dx: Student's t over its values, of a single one the "
    "bootstrap over its test clips)."
)


@dataclass(frozen=True)
class Cell:
    """A score in percent, and the marks of what is to be known where it is compared."""

    mean: float
    ci95: float | None  # half width of the 95 % confidence interval
    decimals: int = 1
    marks: tuple[str, ...] = ()
    is_best: bool = False  # of those that it stands beside; writers make it bold

    @classmethod
    def percent(
        cls, mean: float, ci95: float | None, *, decimals: int = 1, marks: tuple[str, ...] = ()
    ) -> Cell:
        """From a score in [0, 1]."""
        return cls(100 * mean, None if ci95 is None else 100 * ci95, decimals, marks)

    @property
    def text(self) -> str:
        """As it is printed, without the marks."""
        interval = "" if self.ci95 is None else f" ± {self.ci95:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}{interval}"


class Measured(Protocol):
    """What a cell is made of, such as a score."""

    @property
    def mean(self) -> float: ...
    @property
    def ci95(self) -> float | None: ...


@dataclass(frozen=True)
class Row:
    """A line of the table: an encoder, or a task, with its scores."""

    label: str
    info: tuple[str, ...]  # as many as the table's; empty where there is nothing to say
    cells: tuple[Cell | None, ...]  # as many as the table has columns; None: no score

    @property
    def texts(self) -> tuple[str, ...]:
        """What stands before the scores."""
        return (self.label, *(text or NONE for text in self.info))


@dataclass(frozen=True)
class Group:
    """Rows under a heading."""

    name: str  # empty: no heading
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ResultTable:
    """Scores in percent by row and column."""

    title: str  # empty: none
    heading: str  # of the first column
    info: tuple[str, ...]  # headings of the columns that are not scores
    columns: tuple[str, ...]  # headings of the scores; HTML keeps their line breaks, the others write a comma
    groups: tuple[Group, ...]
    marks: Mapping[str, str] = field(default_factory=dict)  # what each mark means
    notes: tuple[str, ...] = ()
    spans: tuple[tuple[str, int], ...] = ()  # headings above `columns`, with how many each covers; or none

    @property
    def column_titles(self) -> tuple[str, ...]:
        """The headings of the scores, each in one line with the heading above it."""
        above = [heading for heading, count in self.spans for _ in range(count)] or [""] * len(self.columns)
        return tuple(
            ", ".join(filter(None, (heading, *name.split("\n"))))
            for heading, name in zip(above, self.columns, strict=True)
        )

    @property
    def headings(self) -> tuple[str, ...]:
        """Those of all columns, each in one line."""
        return (self.heading, *self.info, *self.column_titles)


class Marks:
    """Gives each explanation a letter: a, b, ..., z, aa, ab, ..."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}
        self._unused = ("".join(signs) for n in count(1) for signs in product(ascii_lowercase, repeat=n))

    def of(self, *texts: str) -> tuple[str, ...]:
        """The letters of explanations, in their order, each once."""
        for text in texts:
            if text not in self._letters:
                self._letters[text] = next(self._unused)
        letters = {self._letters[text] for text in texts}
        return tuple(sorted(letters, key=lambda letter: (len(letter), letter)))

    def meanings(self) -> dict[str, str]:
        """Letter -> explanation."""
        return {letter: text for text, letter in self._letters.items()}


def score_table(scores: Sequence[Score]) -> ResultTable:
    """A row for each task, protocol and metric, a column for each encoder, in the order in which they come.

    The best mean of each row is marked as such.
    """
    encoders = tuple(dict.fromkeys(score.encoder for score in scores))
    lines: dict[tuple[str, str, str], dict[str, Score]] = {}
    for score in scores:
        lines.setdefault((score.task, score.protocol, score.metric), {})[score.encoder] = score
    rows = []
    for (task, protocol, metric), found in lines.items():
        rows.append(Row(task, (f"{protocol} ({metric})",), cells_of([found.get(name) for name in encoders])))
    return ResultTable("", "task", ("protocol",), encoders, (Group("", tuple(rows)),))


def cells_of(scores: Sequence[Measured | None]) -> tuple[Cell | None, ...]:
    """Cells of scores that are compared with each other; of those with the best mean `is_best` is set."""
    best = max((score.mean for score in scores if score is not None), default=None)
    return tuple(
        None if score is None else replace(Cell.percent(score.mean, score.ci95), is_best=score.mean == best)
        for score in scores
    )


def record_table(records: Sequence[ResultRecord], *, every: bool = False) -> ResultTable:
    """All records, a row each, by task, protocol and metric; without `every`, the newest ones."""
    shown = list(records) if every else newest(records)
    labels, marks = encoder_labels(records), Marks()
    order = {key: number for number, key in enumerate(dict.fromkeys(map(score_key, shown)))}
    rows = []
    for record in sorted(shown, key=lambda record: order[score_key(record)]):
        counts = ("" if value is None else f"{value:,}" for value in (record.clips, record.classes))
        info = *score_key(record), str(len(record.seeds)), *counts, f"{record.date:%Y-%m-%d %H:%M}"
        cell = Cell.percent(record.mean, record.ci95, marks=marks.of(*record.warnings))
        rows.append(Row(labels[encoder_key(record)], info, (cell,)))
    return ResultTable(
        title=counted(len(shown), "score"),
        heading="encoder",
        info=("task", "protocol", "metric", "seeds", "clips", "classes", "date (UTC)"),
        columns=("score",),
        groups=(Group("", tuple(rows)),),
        marks=marks.meanings(),
        notes=(PERCENT, *left_out(records, shown)),
    )
