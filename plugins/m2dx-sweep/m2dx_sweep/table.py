"""The scores of a sweep's runs as a table: a row per combination of values, with seeds pooled."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.contract.wording import suggestion
from m2dx.evaluation.metrics import half_width_95
from m2dx.recipe.document import plain_yaml
from m2dx.results.scores import PRETRAINED, parse_lines, read_scores
from m2dx.results.table import Cell, Group, Marks, ResultTable, Row
from m2dx_sweep.grid import SEED, short_keys, value_name

GRID_FILE = "grid.json"
AVERAGE = "average"
"""In place of a task: the mean over all tasks of a protocol and metric."""


@dataclass(frozen=True)
class Number:
    """A score in percent, or a metric of the training."""

    mean: float
    ci95: float | None = None  # half of its 95 % interval
    clips: int | None = None  # of its task; None: not known


Numbers = dict[str, Number]
"""Scores by task/protocol/metric, and metrics by name."""


@dataclass(frozen=True)
class SweptGrid:
    """The content of grid.json: which values the runs of a sweep have."""

    recipe: str  # name of the recipe
    keys: tuple[tuple[str, ...], ...]  # of each argument with several values
    points: Mapping[str, Mapping[str, str]]  # name -> key -> value, as typed

    @classmethod
    def read(cls, folder: Path) -> SweptGrid:
        """The grid of a sweep's folder; raises RecipeError if there is none."""
        try:
            return TypeAdapter(cls).validate_json((folder / GRID_FILE).read_bytes())
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
            raise RecipeError(
                f"{folder} must be the folder of a sweep, but its {GRID_FILE} cannot be read: {reason}; "
                "`m2dx sweep RECIPE KEY=A,B` makes one"
            ) from error


def is_finished(run: Path) -> bool:
    """Whether a run was trained to its last step, exported, and scored if its recipe says so."""
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        recipe = plain_yaml((run / "recipe.yaml").read_text(encoding="utf-8"))
        scored = (run / "scores.json").exists() or not recipe["evaluation"]["tasks"]
    except (OSError, ValueError, KeyError, TypeError, RecipeError):
        return False
    return scored and summary.get("stopped_by") is None and (run / "encoder" / "config.json").exists()


def sweep_table(folder: Path, *, columns: Sequence[str] = (), encoder: str = PRETRAINED) -> ResultTable:
    """The table of the sweep in a folder: its finished runs, a column for each score of an encoder or a baseline.

    `columns` names scores as task/protocol/metric or its start, or metrics of the training; * stands for any text. The
    default is all scores, or losses if there are none. Raises M2dxError if no run is finished, or if an option names
    something that does not exist.
    """
    grid = SweptGrid.read(folder)
    finished = [point for point in grid.points if is_finished(folder / point)]
    if not finished:
        raise M2dxError(
            f"a table needs a finished run, but of {folder} 0 of {len(grid.points)} points are finished"
        )
    scores = _scores(folder, finished, encoder)
    numbers = {
        point: {**scores[point], **_last_metrics(folder / point / "metrics.jsonl")} for point in finished
    }
    names = _select(columns, numbers)
    axes = [keys for keys in grid.keys if keys != (SEED,)]
    rows = defaultdict[tuple[str, ...], list[str]](list)
    for point, values in grid.points.items():
        rows[tuple(value_name(values[key]) for keys in axes for key in keys)].append(point)
    over_seeds, marks = (SEED,) in grid.keys, Marks()
    compared = [[point for point in points if point in numbers] for points in rows.values()]
    lists = _other_lists(folder, grid, compared)

    def cell(name: str, points: Sequence[str]) -> Cell | None:
        found = [numbers[point][name] for point in points if name in numbers.get(point, ())]
        if not found:
            return None
        mean, ci95 = found[0].mean, found[0].ci95
        if over_seeds:
            means = [number.mean for number in found]
            mean, ci95 = float(np.mean(means)), half_width_95(means)
        said = [f"{len(found)} of {len(points)} seeds"] if len(found) < len(points) else []
        if _clips(found) and len(_clips(run[name] for run in numbers.values() if name in run)) > 1:
            said.append(f"scored on {' and '.join(f'{count:,}' for count in _clips(found))} clips")
        said += sorted({f"trained on {lists[point]}" for point in points if point in lists})
        return Cell(mean, ci95, 1 if "/" in name or name == "rankme" else 4, marks.of(*said))

    lines = []
    for points in rows.values():
        values = grid.points[points[0]]
        label, *rest = [", ".join(values[key] for key in keys) for keys in axes] or [grid.recipe]
        runs = f"{sum(point in numbers for point in points)} of {len(points)}"
        lines.append(Row(label, (*rest, runs), tuple(cell(name, points) for name in names)))
    short = short_keys([key for keys in axes for key in keys])
    heading, *info = [", ".join(short[key] for key in keys) for keys in axes] or ["recipe"]
    titles = tuple(name.replace("/", "\n") for name in names)
    groups = (Group("", tuple(lines)),)
    notes = _notes(over_seeds, several=sum(map(bool, compared)) > 1 and any("/" in name for name in names))
    if unfinished := [point for point in grid.points if point not in numbers]:
        notes.append(f"Not finished: {', '.join(unfinished)}.")
    return ResultTable(grid.recipe, heading, (*info, "runs"), titles, groups, marks.meanings(), tuple(notes))


def _notes(over_seeds: bool, *, several: bool) -> list[str]:
    interval = "± of one run is the evaluation's own."
    if over_seeds:
        interval = "Means over the seeds; ± is half of the 95 % confidence interval (Student's t)."
    notes = ["Scores in percent; metrics of the training: their last values.", interval]
    chosen = "Scores are of test clips: of a row that is chosen by them, they are too good."
    return [*notes, chosen] if several else notes


def _clips(numbers: Iterable[Number]) -> list[int]:
    return sorted({number.clips for number in numbers if number.clips is not None})


def _other_lists(folder: Path, grid: SweptGrid, rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """The training lists, by name and fingerprint, of runs that are compared but were not trained on the same ones.

    Where the sweep is over data sets, rows may differ, but not the runs of a row.
    """
    over_sets = any(key.startswith("data.sets") for keys in grid.keys for key in keys)
    found: dict[str, str] = {}
    for points in rows if over_sets else [list(chain(*rows))]:
        lists = {}
        for point in points:
            summary = json.loads((folder / point / "summary.json").read_text(encoding="utf-8"))
            sets = summary.get("data", {}).get("sets", {})
            lists[point] = ", ".join(
                f"{name} (list {facts.get('fingerprint')})" for name, facts in sets.items()
            )
        if len(set(lists.values())) > 1:
            found |= lists
    return found


def _scores(folder: Path, points: Sequence[str], encoder: str) -> dict[str, Numbers]:
    """Scores of an encoder by point, with means over tasks for points that have all tasks of a protocol and metric."""
    scores: dict[str, Numbers] = {}
    encoders, tasks = set[str](), defaultdict[str, set[str]](set)
    for point in points:
        path, scores[point] = folder / point / "scores.json", {}
        for score in read_scores(path) if path.exists() else []:
            encoders.add(score.encoder)
            if score.encoder == encoder:
                protocol = f"{score.protocol}/{score.metric}"
                tasks[protocol].add(name := f"{score.task}/{protocol}")
                ci95, clips = score.ci95, score.details.get("clips")
                scores[point][name] = Number(
                    100 * score.mean,
                    None if ci95 is None else 100 * ci95,
                    clips if isinstance(clips, int) else None,
                )
    if encoders and encoder not in encoders:
        hint = suggestion(encoder, encoders)
        raise M2dxError(f"--encoder must be one of those that were scored, but is {encoder!r}; {hint}")
    for protocol, names in tasks.items():
        for found in scores.values():
            if len(names) > 1 and names <= found.keys():
                parts = [found[name] for name in names]
                clips = sum(part.clips or 0 for part in parts) or None
                found[f"{AVERAGE}/{protocol}"] = Number(
                    float(np.mean([part.mean for part in parts])), clips=clips
                )
    return scores


def _last_metrics(path: Path) -> Numbers:
    """The last value of each metric of a run; incomplete lines are left out."""
    return {
        name: Number(float(value))
        for line in parse_lines(path, json.loads)[0]
        for name, value in line.items()
        if isinstance(value, int | float) and name not in ("step", "epoch", "time")
    }


def _select(patterns: Sequence[str], numbers: Mapping[str, Numbers]) -> list[str]:
    """The names that match the patterns, in the order of the patterns."""
    every = list(dict.fromkeys(chain(*numbers.values())))
    every.sort(key=lambda name: not name.startswith(f"{AVERAGE}/"))
    if not patterns:
        losses = [name for name in every if name.startswith("loss") or name == "rankme"]
        return [name for name in every if "/" in name] or losses
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in every if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*")]
        if not found:
            hint = suggestion(pattern, every)
            raise M2dxError(f"--column must be a score or a metric of these runs, but is {pattern!r}; {hint}")
        chosen |= dict.fromkeys(found)
    return list(chosen)
