"""The scores of a sweep's runs as a table: a row per combination of values, or one key down and another across."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.contract.wording import suggestion
from m2dx.evaluation.metrics import half_width_95
from m2dx.jobs.grid import SEED, short_keys
from m2dx.recipe.document import plain_yaml
from m2dx.results.scores import PRETRAINED, read_scores
from m2dx.results.table import Cell, Group, Marks, ResultTable, Row

GRID_FILE = "grid.json"
AVERAGE = "average"
"""In place of a task: the mean over all tasks of a protocol and metric."""
NONE = "none"
"""For `--across`: no key."""
NOT_METRICS = ("step", "epoch", "time")

Number = tuple[
    float, float | None
]  # a score in percent, or a metric as it is; half of a score's own 95 % interval
Choice = tuple[str, ...]  # the value of each axis but the seed


@dataclass(frozen=True)
class SweptGrid:
    """What grid.json says: what the folders of a sweep's runs stand for."""

    recipe: str  # its name
    keys: tuple[tuple[str, ...], ...]  # of each argument with several values
    points: Mapping[str, Mapping[str, str]]  # name -> key -> value, as typed

    @classmethod
    def read(cls, folder: Path) -> SweptGrid:
        """The grid of a sweep's folder; RecipeError where there is none."""
        try:
            return TypeAdapter(cls).validate_json((folder / GRID_FILE).read_bytes())
        except OSError as error:
            raise RecipeError(
                f"{folder} must be the folder of a sweep, but its {GRID_FILE} cannot be read: {error.strerror}; "
                "`m2dx sweep RECIPE KEY=A,B` makes one"
            ) from error
        except ValidationError as error:
            raise RecipeError(
                f"{folder / GRID_FILE} must be the grid of a sweep, but: {error.errors()[0]['msg']}"
            ) from error


def is_finished(run: Path) -> bool:
    """Whether a run was trained to its last step, exported, and scored where its recipe says so."""
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        recipe = plain_yaml((run / "recipe.yaml").read_text(encoding="utf-8"))
        scored = (run / "scores.json").exists() or not recipe["evaluation"]["tasks"]
    except (OSError, ValueError, KeyError, TypeError, RecipeError):
        return False
    return scored and summary.get("stopped_by") is None and (run / "encoder" / "config.json").exists()


@dataclass(frozen=True)
class Measured:
    """What the finished runs of a sweep have measured, by point."""

    scores: Mapping[str, Mapping[str, Number]]  # by task/protocol/metric, or average/protocol/metric
    metrics: Mapping[str, Mapping[str, Number]]  # the last value of each metric of the training
    unfinished: tuple[str, ...]

    def get(self, point: str, name: str) -> Number | None:
        """A score or a metric of a point."""
        return self.scores.get(point, {}).get(name) or self.metrics.get(point, {}).get(name)

    def select(self, patterns: Sequence[str]) -> list[str]:
        """The names that patterns choose, in their order; without patterns all scores, or losses where there are none.

        A pattern is a metric, or task/protocol/metric whose last parts may be left out, with * for any text. M2dxError
        where one chooses nothing.
        """
        scores = list(dict.fromkeys(name for run in self.scores.values() for name in run))
        scores.sort(key=lambda name: not name.startswith(f"{AVERAGE}/"))
        metrics = list(dict.fromkeys(name for run in self.metrics.values() for name in run))
        if not patterns:
            return scores or [name for name in metrics if name.startswith("loss") or name == "rankme"]
        chosen: dict[str, None] = {}
        for pattern in patterns:
            parts = pattern.split("/")
            found = [
                name
                for name in (*scores, *metrics)
                if len(parts) <= len(names := name.split("/", 2)) and all(map(fnmatchcase, names, parts))
            ]
            if not found:
                raise M2dxError(
                    f"--column must be a score or a metric of these runs, but is {pattern!r}; "
                    f"{suggestion(pattern, [*scores, *metrics])}"
                )
            chosen |= dict.fromkeys(found)
        return list(chosen)


def sweep_table(
    folder: Path, *, columns: Sequence[str] = (), encoder: str = PRETRAINED, across: str | None = None
) -> ResultTable:
    """The table of the sweep in a folder, the runs of all seeds pooled.

    `across`: the key whose values become the columns, with a group of rows per number; None: the second of two keys;
    "none": a row per combination, and a column per number. M2dxError where nothing is finished, or an option names what
    is not there.
    """
    grid = SweptGrid.read(folder)
    measured = measure(folder, list(grid.points), encoder=encoder)
    if not measured.metrics:
        raise M2dxError(
            f"a table needs a finished run, but of {folder} 0 of {len(grid.points)} points are finished"
        )
    names = measured.select(columns)
    titles, common = _headings(names)
    axes = [keys for keys in grid.keys if keys != (SEED,)]
    short = short_keys([key for keys in axes for key in keys])
    labels = [", ".join(short[key] for key in keys) for keys in axes]
    points: dict[Choice, list[str]] = defaultdict(list)
    for point, typed in grid.points.items():
        points[tuple(", ".join(typed[key] for key in keys) for keys in axes)].append(point)
    marks, number = Marks(), _axis_across(axes, labels, across)
    over_seeds = (SEED,) in grid.keys

    def cell(name: str, choice: Choice) -> Cell | None:
        found = [measured.get(point, name) for point in points.get(choice, [])]
        numbers = [value for value in found if value is not None]
        if not numbers:
            return None
        mean, ci95 = numbers[0]
        if over_seeds:
            means = [value for value, _ in numbers]
            mean, ci95 = float(np.mean(means)), half_width_95(means)
        partly = [f"{len(numbers)} of {len(found)} seeds"] if len(numbers) < len(found) else []
        return Cell(mean, ci95, 1 if "/" in name or name == "rankme" else 4, marks.of(*partly))

    if number is None:
        heading, *info = [*(labels or ["recipe"]), "runs"]
        rows = []
        for choice, of_row in points.items():
            label, *rest = choice or (grid.recipe,)
            finished = f"{sum(point in measured.metrics for point in of_row)} of {len(of_row)}"
            rows.append(Row(label, (*rest, finished), tuple(cell(name, choice) for name in names)))
        groups, shown = [Group("", tuple(rows))], titles
    else:
        heading, info = ", ".join(label for index, label in enumerate(labels) if index != number), []
        values = list(dict.fromkeys(choice[number] for choice in points))
        rests = list(dict.fromkeys((choice[:number], choice[number + 1 :]) for choice in points))
        shown = [f"{labels[number]} {value}" for value in values]
        groups = [
            Group(
                title,
                tuple(
                    Row(
                        ", ".join(left + right),
                        (),
                        tuple(cell(name, (*left, value, *right)) for value in values),
                    )
                    for left, right in rests
                ),
            )
            for name, title in zip(names, titles, strict=True)
        ]
    title = f"{grid.recipe}: {common}" if common else grid.recipe
    notes = _notes(names, measured, over_seeds=over_seeds)
    return ResultTable(title, heading, tuple(info), tuple(shown), tuple(groups), marks.meanings(), notes)


def measure(folder: Path, points: Sequence[str], *, encoder: str = PRETRAINED) -> Measured:
    """Scores of an encoder (or baseline) and last metrics of the finished runs.

    M2dxError where there are scores, but none of that encoder; CheckpointError where scores cannot be read.
    """
    scores: dict[str, dict[str, Number]] = {}
    metrics: dict[str, dict[str, Number]] = {}
    encoders: set[str] = set()
    for point in points:
        run = folder / point
        if not is_finished(run):
            continue
        every = read_scores(run / "scores.json") if (run / "scores.json").exists() else []
        encoders |= {score.encoder for score in every}
        scores[point] = {
            f"{score.task}/{score.protocol}/{score.metric}": (
                100 * score.mean,
                None if score.ci95 is None else 100 * score.ci95,
            )
            for score in every
            if score.encoder == encoder
        }
        metrics[point] = last_metrics(run / "metrics.jsonl")
    if encoders and encoder not in encoders:
        raise M2dxError(
            f"--encoder must be one of those that were scored, but is {encoder!r}; "
            f"{suggestion(encoder, encoders)}"
        )
    _add_averages(scores)
    return Measured(scores, metrics, tuple(point for point in points if point not in metrics))


def last_metrics(path: Path) -> dict[str, Number]:
    """The last value of each metric of a run; lines that are cut off are left out."""
    last: dict[str, Number] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        for name, value in values.items():
            if name not in NOT_METRICS and isinstance(value, int | float):
                last[name] = (float(value), None)
    return last


def _add_averages(scores: Mapping[str, dict[str, Number]]) -> None:
    """Adds means over tasks, where a protocol and metric has several, to the runs that have all of them."""
    tasks: dict[str, set[str]] = defaultdict(set)
    for run in scores.values():
        for name in run:
            tasks[name.partition("/")[2]].add(name)
    for run in scores.values():
        for protocol, names in tasks.items():
            if len(names) > 1 and names <= run.keys():
                run[f"{AVERAGE}/{protocol}"] = (float(np.mean([run[name][0] for name in names])), None)


def _axis_across(axes: Sequence[tuple[str, ...]], labels: Sequence[str], across: str | None) -> int | None:
    if across is None:
        return 1 if len(axes) == 2 else None
    if across == NONE:
        return None
    titles = ["+".join(keys) for keys in axes]
    for index, keys in enumerate(axes):
        if across in (titles[index], labels[index], *keys):
            if len(axes) == 1:
                raise M2dxError(
                    f"--across must leave a key for the rows, but {titles[0]} is the only one; leave it out"
                )
            return index
    known = ", ".join(titles) or "there is none but the seed"
    raise M2dxError(f"--across must be a key of this sweep ({known}) or none, but is {across!r}")


def _headings(names: Sequence[str]) -> tuple[list[str], str]:
    """The heading of each number, without the protocol and the metric that all scores share, and those."""
    scores = [name.split("/", 2)[1:] for name in names if "/" in name]
    shared = [index for index in (0, 1) if scores and len({parts[index] for parts in scores}) == 1]
    titles = []
    for name in names:
        first, *parts = name.split("/", 2)
        rest = ", ".join(part for index, part in enumerate(parts) if index not in shared)
        titles.append(f"{first} ({rest})" if rest else first)
    return titles, ", ".join(scores[0][index] for index in shared)


def _notes(names: Sequence[str], measured: Measured, *, over_seeds: bool) -> tuple[str, ...]:
    notes = []
    if any("/" in name for name in names):
        notes.append("Scores in percent.")
    if any("/" not in name for name in names):
        notes.append("Metrics of the training: their last values.")
    if over_seeds:
        notes.append("Means over the seeds; ± is half of the 95 % confidence interval (Student's t).")
    elif any(measured.scores.values()):
        notes.append(
            "One run each; ± is the evaluation's own 95 % confidence interval, not that of the training."
        )
    if any(name.startswith(f"{AVERAGE}/") for name in names):
        notes.append("average: the mean over the tasks.")
    if measured.unfinished:
        notes.append(f"Not finished: {', '.join(measured.unfinished)}.")
    return tuple(notes)
