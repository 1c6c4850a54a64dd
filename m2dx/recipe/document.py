"""A recipe as a tree of values that know where they were written."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from m2dx.contract.errors import RecipeError
from m2dx.contract.paths import PlacedText


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


_MERGE_TAG = "tag:yaml.org,2002:merge"


def read_yaml(text: str, *, place: Place, problems: list[Problem]) -> Entry | None:
    """The tree of a YAML text; None when there is nothing in it.

    `place` is where the text stands: with a line, lines are counted; without, everything has that place. Raises
    `RecipeError` for text that is not YAML, together with the problems found before.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Tree(loader, place, problems).entry(node, place)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise RecipeError(report([*problems, _syntax_problem(error, text, place)])) from error


def _syntax_problem(error: yaml.YAMLError, text: str, place: Place) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(place, f"must be YAML text, but {' '.join(str(error).split())}")
    mark = error.problem_mark or error.context_mark
    reason = ", ".join(part for part in (error.context, error.problem) if part)
    hint = "; indent with spaces, not with tabs" if "'\\t'" in reason else ""
    if mark is not None:
        if "${" in "".join(text.splitlines()[mark.line : mark.line + 1]):
            hint = '; between { } and [ ], write a path with a variable in quotes: "${NAME}/folder"'
        if place.line is not None:
            place = Place(place.source, mark.line + 1, place.folder)
    return Problem(place, f"must be YAML, but is not: {reason}{hint}")


@dataclass
class _Tree:
    loader: yaml.SafeLoader
    place: Place
    problems: list[Problem]
    open_nodes: set[int] = field(default_factory=set)  # that an alias must not point back to
    checked: set[int] = field(default_factory=set)

    def entry(self, node: yaml.Node, place: Place) -> Entry:
        if isinstance(node, yaml.ScalarNode):
            return Entry(self._scalar(node, place), place)
        if id(node) in self.open_nodes:
            self.problems.append(Problem(place, "an alias must not stand inside of what it repeats"))
            return Entry(None, place)
        self.open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return Entry([self.entry(item, self._at(item)) for item in node.value], place)
            assert isinstance(node, yaml.MappingNode)
            return Entry(self._mapping(node), place)
        finally:
            self.open_nodes.remove(id(node))

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Entry]:
        if id(node) not in self.checked:  # once: merged keys, which may be repeated, are put in place below
            self.checked.add(id(node))
            self._refuse_duplicates(node)
        self.loader.flatten_mapping(node)
        entries: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            place = self._at(key_node)
            key = self._scalar(key_node, place) if isinstance(key_node, yaml.ScalarNode) else None
            if isinstance(key, str):
                entries[key] = self.entry(value_node, place)
            else:
                shown = getattr(key_node, "value", None)
                text = (
                    f"{shown!r} is read as {key!r}"
                    if isinstance(shown, str)
                    else "this one is a list or a mapping"
                )
                self.problems.append(Problem(place, f"a key must be text, but {text}; write it in quotes"))
        return entries

    def _refuse_duplicates(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE_TAG:
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in lines:
                first = f" (first in line {lines[key_node.value]})" if self.place.line is not None else ""
                text = f"a key must be given once, but {key_node.value!r} is there twice{first}; remove one"
                self.problems.append(Problem(self._at(key_node), text))
            lines[key_node.value] = line

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> str | int | float | bool | None:
        try:
            value: str | int | float | bool | None = self.loader.construct_object(node)
        except yaml.MarkedYAMLError as error:  # a tag such as !!python/object
            self.problems.append(Problem(place, f"must be plain YAML, but {error.problem}"))
        except ValueError as error:  # a date that does not exist
            self.problems.append(
                Problem(place, f"{node.value!r} cannot be read ({error}); write it in quotes")
            )
        else:
            return value
        return None

    def _at(self, node: yaml.Node) -> Place:
        if self.place.line is None:
            return self.place
        return Place(self.place.source, node.start_mark.line + 1, self.place.folder)
