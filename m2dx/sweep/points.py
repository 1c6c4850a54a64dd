"""The points of a grid as recipes, all of which are checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.recipe.schema import Recipe
from m2dx.results.scoring import Scoring
from m2dx.sweep.grid import KEEP, SEED, Grid
from m2dx.sweep.naming import run_name, sweep_name

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

MOST_NAMED = 4
"""Points that an error names one by one."""
HOW_IT_RUNS = (
    "output",
    "data.workers",
    "train.device",
    "train.threads",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "train.timeout_minutes",
)
"""Fields that may change while a sweep goes on, since they change no result (its folder may have been moved)."""


@dataclass(frozen=True)
class Point:
    """One point of the grid: a run."""

    name: str  # of its run and the run's folder
    values: Mapping[str, str]  # by key, of the arguments with several values
    recipe: Recipe  # resolved; its output is the sweep's folder


@dataclass(frozen=True)
class Plan:
    """A sweep whose points are all valid; nothing is written yet."""

    folder: Path
    keys: tuple[tuple[str, ...], ...]  # of each argument with several values
    points: tuple[Point, ...]


def plan_sweep(path: Path, grid: Grid, *, host: PluginHost, processes: int = 1) -> Plan:
    """The recipe at every point of the grid, in `<output>/<sweep>/<point>`.

    RecipeError with all that is wrong with any of them: recipes that are not valid, evaluations whose lists cannot be
    used, batches that do not divide by the processes, points that are the same.
    """
    swept = [key for axis in grid.axes for key in axis.keys]
    choices = list(grid.choices())
    names = [run_name({key: choice[key] for key in swept}) for choice in choices]
    recipes, problems = [], []
    for choice, name in zip(choices, names, strict=True):
        overrides = [f"{key}={value}" for key, value in choice.items() if value != KEEP]
        try:
            recipes.append(load_recipe(path, overrides, host=host))
        except RecipeError as error:
            problems.append((name, str(error)))
    if problems:
        raise _not_valid(problems, len(choices))
    base = recipes[0]
    folder = base.output / (base.name if grid.is_named else sweep_name(base.name, _naming(swept)))
    points = tuple(
        Point(
            name,
            {key: choice[key] for key in swept},
            recipe.model_copy(update={"name": name, "output": folder}),
        )
        for choice, name, recipe in zip(choices, names, recipes, strict=True)
    )
    _check_together(points, host, processes)
    return Plan(folder, tuple(axis.keys for axis in grid.axes), points)


def differences(before: Recipe, now: Recipe, *, ignored: Iterable[str] = HOW_IT_RUNS) -> list[str]:
    """Fields that two recipes differ in, as `key.path (before -> now)`."""
    old, new = _fields(recipe_to_mapping(before)), _fields(recipe_to_mapping(now))
    absent = "not there"
    return [
        f"{key} ({old.get(key, absent)} -> {new.get(key, absent)})"
        for key in dict.fromkeys([*old, *new])
        if old.get(key, absent) != new.get(key, absent) and key not in tuple(ignored)
    ]


def _naming(swept: Sequence[str]) -> list[str]:
    return [key for key in swept if key != SEED] or list(swept)


def _fields(mapping: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Every value that is no mapping, by its path."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            found |= _fields(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value
    return found


def _check_together(points: Sequence[Point], host: PluginHost, processes: int) -> None:
    problems: list[tuple[str, str]] = []
    named: dict[str, Point] = {}
    same: dict[str, str] = {}
    evaluations: dict[str, str | None] = {}
    for point in points:
        recipe, train = point.recipe, point.recipe.train
        if point.name in named:
            problems.append(
                (point.name, f"values must give names that differ, but two points are called {point.name}")
            )
        named[point.name] = point
        text = recipe.model_copy(update={"name": "point"}).model_dump_json()
        if same.setdefault(text, point.name) != point.name:
            problems.append(
                (
                    point.name,
                    f"points must differ, but this is the same recipe as {same[text]}; leave one out",
                )
            )
        accumulate = 1 if train.accumulate == "auto" else train.accumulate
        if train.batch_size % (accumulate * processes):
            problems.append(
                (
                    point.name,
                    f"train.batch_size must be a multiple of train.accumulate x processes ({accumulate} x "
                    f"{processes}), but is {train.batch_size}",
                )
            )
        if recipe.evaluation.tasks:
            evaluation = recipe.evaluation.model_dump_json()
            if evaluation not in evaluations:
                evaluations[evaluation] = _evaluation_error(recipe, host)
            if (error := evaluations[evaluation]) is not None:
                problems.append((point.name, error))
    if problems:
        raise _not_valid(problems, len(points))


def _evaluation_error(recipe: Recipe, host: PluginHost) -> str | None:
    try:
        Scoring.of(recipe, host)
    except M2dxError as error:
        return str(error)
    return None


def _not_valid(problems: Sequence[tuple[str, str]], count: int) -> RecipeError:
    """Each text once, with the points that it is true of."""
    points: dict[str, list[str]] = {}
    for name, text in problems:
        points.setdefault(text, []).append(name)
    wrong = {name for name, _ in problems}
    lines = [f"{len(wrong)} of {count} points cannot be run, so nothing was started"]
    for text, names in points.items():
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        where = "all points" if len(names) == count else ", ".join(names[:MOST_NAMED]) + more
        lines += [f"{where}:", *(f"  {line}" for line in text.splitlines())]
    return RecipeError("\n".join(lines))
