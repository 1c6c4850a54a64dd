"""The table of a sweep: rows and columns from the values of its keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m2dx.contract.errors import M2dxError
from m2dx.results.table import Cell, Group, Marks, ResultTable, Row
from m2dx.sweep.folder import Manifest, ManifestPoint, State
from m2dx.sweep.grid import SEED
from m2dx.sweep.naming import short_keys
from m2dx.sweep.tables import AVERAGE, Measured, pooled

NONE = "none"
"""For `--across`: no key."""

Choice = tuple[str, ...]  # the value of each axis but the seed


@dataclass(frozen=True)
class _Axes:
    """The keys of a sweep but the seed, and the points by their values."""

    titles: tuple[str, ...]  # full, as typed
    labels: tuple[str, ...]  # short
    cells: dict[Choice, list[ManifestPoint]]

    @classmethod
    def of(cls, manifest: Manifest) -> _Axes:
        axes = [keys for keys in manifest.keys if keys != (SEED,)]
        short = short_keys([key for keys in axes for key in keys])
        cells: dict[Choice, list[ManifestPoint]] = {}
        for point in manifest.points:
            choice = tuple(", ".join(point.values[key] for key in keys) for keys in axes)
            cells.setdefault(choice, []).append(point)
        labels = tuple(", ".join(short[key] for key in keys) for keys in axes)
        return cls(tuple("+".join(keys) for keys in axes), labels, cells)

    def values(self, axis: int) -> list[str]:
        """The values of an axis, in the order of the points."""
        return list(dict.fromkeys(choice[axis] for choice in self.cells))


def sweep_table(
    manifest: Manifest, measured: Measured, *, columns: Sequence[str], across: str | None = None
) -> ResultTable:
    """The numbers `columns` (names of `Measured.select`) of a sweep, the runs of all seeds pooled.

    `across`: the key whose values become the columns, with a group of rows per number; None: the second of two keys;
    "none": a row per combination, and a column per number. M2dxError for a key that is not swept.
    """
    axes = _Axes.of(manifest)
    number = _across(axes, across)
    marks = Marks()

    def cell(name: str, points: Sequence[ManifestPoint]) -> Cell | None:
        return _cell(measured, name, points, marks)

    titles, common = _headings(columns)
    if number is None:
        heading, *info = axes.labels or ("recipe",)
        rows = []
        for choice, points in axes.cells.items():
            label, *rest = choice or (manifest.recipe,)
            cells = tuple(cell(name, points) for name in columns)
            rows.append(Row(label, (*rest, _runs(measured, points)), cells))
        groups = [Group("", tuple(rows))]
        info, names = [*info, "runs"], list(titles)
    else:
        kept = [index for index in range(len(axes.labels)) if index != number]
        heading, info = ", ".join(axes.labels[index] for index in kept), []
        values = axes.values(number)
        names = [f"{axes.labels[number]} {value}" for value in values]
        choices = dict.fromkeys(tuple(choice[index] for index in kept) for choice in axes.cells)
        groups = []
        for name, title in zip(columns, titles, strict=True):
            rows = []
            for choice in choices:
                found = [axes.cells.get(_inserted(choice, number, value), []) for value in values]
                rows.append(Row(", ".join(choice), (), tuple(cell(name, points) for points in found)))
            groups.append(Group(title, tuple(rows)))
    about = f": {common}" if common else ""
    notes = _notes(manifest, measured, columns)
    return ResultTable(
        f"{manifest.recipe}{about}",
        heading,
        tuple(info),
        tuple(names),
        tuple(groups),
        marks.meanings(),
        notes,
    )


def _across(axes: _Axes, across: str | None) -> int | None:
    if across is None:
        return 1 if len(axes.titles) == 2 else None
    if across == NONE:
        return None
    for index, (title, label) in enumerate(zip(axes.titles, axes.labels, strict=True)):
        if across in (title, label, *title.split("+")):
            if len(axes.titles) == 1:
                raise M2dxError(
                    f"--across must leave a key for the rows, but {title} is the only one; leave it out"
                )
            return index
    known = ", ".join(axes.titles) or "there is none but the seed"
    raise M2dxError(f"--across must be a key of this sweep ({known}) or none, but is {across!r}")


def _inserted(choice: Choice, index: int, value: str) -> Choice:
    return (*choice[:index], value, *choice[index:])


def _cell(measured: Measured, name: str, points: Sequence[ManifestPoint], marks: Marks) -> Cell | None:
    """The pooled number of the runs of a cell; marked where some of its seeds lack."""
    over_seeds = any(SEED in point.values for point in points)
    found = [run.get(name) for point in points if (run := measured.runs.get(point.name)) is not None]
    numbers = [number for number in found if number is not None]
    mean = pooled(numbers, over_seeds=over_seeds)
    if mean is None:
        return None
    partly = [f"{len(numbers)} of {len(points)} seeds"] if len(numbers) < len(points) else []
    return Cell(mean.value, mean.ci95, _decimals(name, measured), marks.of(*partly))


def _decimals(name: str, measured: Measured) -> int:
    if name in measured.scores or name == "rankme":
        return 1
    return 4


def _runs(measured: Measured, points: Sequence[ManifestPoint]) -> str:
    """How many of the runs of a row are finished, or what a single one is."""
    states = [measured.states[point.name] for point in points]
    finished = states.count(State.FINISHED)
    if len(states) == 1 and not finished:
        return states[0].value
    return f"{finished} of {len(states)}"


def _headings(columns: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The heading of each number, without the protocol and the metric that all scores share, and those."""
    parts = [name.split("/", 2) for name in columns]
    scores = [part for part in parts if len(part) == 3]
    shared = [index for index in (1, 2) if scores and len({part[index] for part in scores}) == 1]
    titles = []
    for part in parts:
        if len(part) < 3:
            titles.append(part[0])
            continue
        rest = [part[index] for index in (1, 2) if index not in shared]
        titles.append(" ".join([part[0], *([f"({', '.join(rest)})"] if rest else [])]))
    return tuple(titles), ", ".join(scores[0][index] for index in shared)


def _notes(manifest: Manifest, measured: Measured, columns: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if any(name in measured.scores for name in columns):
        notes.append("Scores in percent.")
    if any(name in measured.metrics for name in columns):
        notes.append("Metrics of the training: their last values.")
    if (SEED,) in manifest.keys:
        notes.append("Means over the seeds; ± is half of the 95 % confidence interval (Student's t).")
    elif any(run.scores for run in measured.runs.values()):
        notes.append(
            "One run each; ± is the evaluation's own 95 % confidence interval, not that of the training."
        )
    if any(name.startswith(f"{AVERAGE}/") for name in columns):
        notes.append("average: the mean over the tasks.")
    for state in State:
        points = [point for point, its in measured.states.items() if its is state]
        if points and state is not State.FINISHED:
            notes.append(f"{state.value.capitalize()}: {', '.join(points)}.")
    return tuple(notes)
