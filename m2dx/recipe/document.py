"""A recipe as a tree of values that know where they were written."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from m2dx.recipe.paths import PlacedText


@dataclass(frozen=True)
class Place:
    """Where a value was written."""

    source: str  # a file as the user named it, or an override
    line: int | None  # from 1; None: the source has no lines
    folder: Path  # that relative paths start from

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


Scalar: TypeAlias = "str | int | float | bool | bytes | datetime.date | None"
Value: TypeAlias = "dict[str, Entry] | list[Entry] | Scalar"


@dataclass(frozen=True)
class Entry:
    """One value of the tree, and the place of its key (of an item in a list: of the item)."""

    value: Value
    place: Place


@dataclass(frozen=True)
class Problem:
    """One line of a `RecipeError`."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def report(problems: Iterable[Problem]) -> str:
    """All problems, one a line: files in the order in which they came up, lines from top to bottom."""
    unique = list(dict.fromkeys(problems))
    order = list(dict.fromkeys(problem.place.source for problem in unique))
    unique.sort(key=lambda problem: (order.index(problem.place.source), problem.place.line or 0))
    return "\n".join(map(str, unique))


def plain(entry: Entry) -> Any:
    """The values alone; texts keep the folder that relative paths start from."""
    value = entry.value
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return PlacedText(value, entry.place.folder) if isinstance(value, str) else value


def nearest(root: Entry, path: Iterable[str | int]) -> Entry:
    """The entry at a path, or the last one on the way to it."""
    entry = root
    for step in path:
        child = _child(entry.value, step)
        if child is None:
            break
        entry = child
    return entry


def _child(value: Value, step: str | int) -> Entry | None:
    if isinstance(value, dict):
        return value.get(str(step))
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def merge(base: Entry, over: Entry, *, root: bool = True) -> Entry:
    """`over` on top of `base`: mappings key by key, anything else replaced.

    A component section whose `name` changes is replaced, since options of another component mean nothing. Null in
    place of a mapping removes the key. (The root's `name` is the run's, not a component's.)
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    if not root and _other_component(base.value, over.value):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        if key not in merged:
            merged[key] = child
        elif child.value is None and isinstance(merged[key].value, dict):
            del merged[key]
        else:
            merged[key] = merge(merged[key], child, root=False)
    return Entry(merged, base.place)


def _other_component(base: dict[str, Entry], over: dict[str, Entry]) -> bool:
    return "name" in base and "name" in over and base["name"].value != over["name"].value
