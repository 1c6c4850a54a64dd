"""The papers' tables, as data files with their source: tasks, protocols, and the rows of each table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter

from m2dx.results import Cell

_FOLDER = files("m2dx_tasks.papers")


@dataclass(frozen=True)
class PaperTask:
    """A task of the papers, with what they say of its data; None, or a part of 0 clips: nothing."""

    title: str
    names: tuple[str, ...]  # of tasks and data sets of m2dx that are this one, however their words are joined
    metrics: tuple[str, ...] = ("accuracy",)  # the names that its metric has
    classes: int | None = None
    folds: int = 1
    clips: int | None = None
    parts: tuple[int, int, int] | None = None  # clips for training, validation, test
    seconds: float | None = None  # length that the paper crops and fills clips to, mostly their mean


@dataclass(frozen=True)
class PaperProtocol:
    """How the papers evaluate."""

    title: str
    evaluators: tuple[str, ...]  # the components of m2dx that do it
    seeds: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    by_task: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # settings, by key of the task
    code_settings: Mapping[str, str] = field(default_factory=dict)  # that only the papers' code has
    short_clips: Literal["pad", "own"] = "pad"  # own: the evaluators fill them in a way of their own
    remarks: Mapping[str, str] = field(default_factory=dict)  # footnotes, by remark of the metric or ""
    differences: tuple[str, ...] = ()  # of m2dx, whatever its settings

    def settings_for(self, task: str) -> dict[str, str]:
        """The published settings, by option, for a task's key."""
        return {**self.settings, **self.by_task.get(task, {})}


@dataclass(frozen=True)
class PaperColumn:
    """A column: one task's score, or the mean over several tasks."""

    name: str
    tasks: Mapping[str, PaperTask]  # by key
    metrics: tuple[str, ...] | None  # where not those of the task
    protocol: PaperProtocol

    def metrics_of(self, task: str) -> tuple[str, ...]:
        """The names that the metric of a task (by key) has."""
        return self.metrics or self.tasks[task].metrics


@dataclass(frozen=True)
class PaperRow:
    """A row: a model, what the table says of it, and its scores by column."""

    label: str
    group: str  # heading that it stands under; empty: none
    info: Mapping[str, str]
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class PaperTable:
    """A published table."""

    key: str
    source: str
    title: str
    decimals: int  # that most of its cells have
    info: tuple[str, ...]  # columns that are not scores
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    footnotes: Mapping[str, str]  # by the sign that refers to them
    left_out: tuple[str, ...]  # what could not be read with certainty

    def task_names(self) -> dict[str, str]:
        """The name that each of its tasks has in recipes, by title."""
        return {task.title: task.names[0] for column in self.columns for task in column.tasks.values()}


def table_keys() -> tuple[str, ...]:
    """The published tables, in the order of the papers."""
    return (
        *(f"m2d-x-{number}" for number in "iii iv v vi vii viii ix x xi xii xiii xiv fig-4".split()),
        *(f"msm-mae-{number}" for number in range(2, 8)),
    )


def load_table(key: str) -> PaperTable:
    """The published table of that key, one of `table_keys`."""
    content = _read(f"{key.replace('-', '_')}.yaml")
    columns = tuple(_column(name, column, content["protocol"]) for name, column in content["columns"].items())
    info = tuple(content.get("info", ()))
    return PaperTable(
        key=key,
        source=content["source"],
        title=content["title"],
        decimals=int(content["decimals"]),
        info=info,
        columns=columns,
        rows=tuple(
            _row(row, group.get("name", ""), info, tuple(column.name for column in columns))
            for group in content["groups"]
            for row in group["rows"]
        ),
        footnotes=content.get("footnotes", {}),
        left_out=tuple(content.get("left_out", ())),
    )


@cache
def paper_tasks() -> Mapping[str, PaperTask]:
    """The tasks of all tables, by key."""
    return TypeAdapter(dict[str, PaperTask]).validate_python(_read("tasks.yaml"))


@cache
def paper_protocols() -> Mapping[str, PaperProtocol]:
    """The protocols of all tables, by key."""
    return TypeAdapter(dict[str, PaperProtocol]).validate_python(_read("protocols.yaml"))


def _read(name: str) -> Any:
    """A data file; every scalar is text, as it is written, so that no digit is lost."""
    return yaml.load((_FOLDER / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def _column(name: str, column: Mapping[str, Any], protocol: str) -> PaperColumn:
    metrics = column.get("metrics")
    return PaperColumn(
        name=name,
        tasks={key: paper_tasks()[key] for key in column["tasks"]},
        metrics=None if metrics is None else tuple(metrics),
        protocol=paper_protocols()[column.get("protocol", protocol)],
    )


def _row(row: Mapping[str, str], group: str, info: tuple[str, ...], columns: tuple[str, ...]) -> PaperRow:
    strange = set(row) - {"label", *info, *columns}
    assert not strange, f"{row['label']}: {strange}"
    return PaperRow(
        label=row["label"],
        group=group,
        info={key: row[key] for key in info if key in row},
        cells={key: _cell(row[key]) for key in columns if key in row},
    )


def _cell(text: str) -> Cell:
    """A printed number in percent, such as "91.3 ± 0.6" or "98.11"."""
    mean, _, ci95 = text.partition(" ± ")
    return Cell(float(mean), float(ci95) if ci95 else None, len(mean.partition(".")[2]))
