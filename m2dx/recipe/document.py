"""A recipe as a tree of values that know where they were written, read from YAML 1.2 (the core schema)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

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


Scalar: TypeAlias = "str | int | float | bool | None"
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


class Problems(list[Problem]):
    """All that is wrong with a recipe."""

    def add(self, place: Place, text: str) -> None:
        """Adds a problem, after which the next ones are looked for."""
        self.append(Problem(place, text))

    def stop(self, place: Place, text: str) -> NoReturn:
        """Adds a problem after which there is nothing to read, and raises the error."""
        self.add(place, text)
        raise self.error()

    def error(self) -> RecipeError:
        """All problems, one a line: files in the order in which they came up, lines from top to bottom."""
        unique = list(dict.fromkeys(self))
        order = list(dict.fromkeys(problem.place.source for problem in unique))
        unique.sort(key=lambda problem: (order.index(problem.place.source), problem.place.line or 0))
        return RecipeError("\n".join(map(str, unique)))


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

    A component section whose `name` changes is replaced, since options of another component mean nothing. Text beside a
    component's section is a component's name. Null in place of a mapping removes the key. (The root's `name` is the
    run's, not a component's.)
    """
    if isinstance(base.value, str) and isinstance(over.value, dict):
        base = Entry({"name": base}, base.place)
    elif isinstance(over.value, str) and isinstance(base.value, dict) and "name" in base.value:
        over = Entry({"name": over}, over.place)
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    names = [values["name"].value for values in (base.value, over.value) if "name" in values]  # may be lists
    if not root and len(names) == 2 and names[0] != names[1]:  # another component
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


MOST_VALUES = 20_000  # values of a recipe at most, with what its aliases repeat
MOST_LEVELS = 40  # mappings and lists inside of each other at most
_TOO_DEEP = f"must have at most {MOST_LEVELS} levels of mappings and lists, but has more"

_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset(_TAG + kind for kind in "null bool int float str timestamp value".split())
"""Tags of the scalars; what YAML 1.1 reads as a time or a value is text."""
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def read_yaml(text: str, *, place: Place, problems: Problems) -> Entry | None:
    """The tree of a YAML text; None when there is nothing in it.

    `place` is where the text stands: with a line, lines are counted; without, everything has that place. Raises
    `RecipeError` for text that is not YAML, or grows too large, together with the problems found before.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=ReusedAnchorWarning):
            node = YAML(typ="safe", pure=True).compose(text)
        return None if node is None else _Tree(place, problems).entry(node, place, level=0)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces, not with tabs" if "'\\t'" in reason else ""
        if mark is not None and "${" in "".join(text.splitlines()[mark.line : mark.line + 1]):
            hint = '; between { } and [ ], write a path with a variable in quotes: "${NAME}/folder"'
        if mark is not None and place.line is not None:
            place = Place(place.source, mark.line + 1, place.folder)
        problems.stop(place, f"must be YAML, but is not: {reason}{hint}")
    except YAMLError as error:
        problems.stop(place, f"must be YAML text, but {' '.join(str(error).split())}")
    except RecursionError:
        problems.stop(place, _TOO_DEEP)


def plain_yaml(text: str) -> Any:
    """The values of a YAML text that m2dx wrote. Raises `RecipeError` where it is not YAML."""
    problems = Problems()
    entry = read_yaml(text, place=Place("YAML", 1, Path()), problems=problems)
    if problems:
        raise problems.error()
    return None if entry is None else plain(entry)


def write_yaml(values: Any) -> str:
    """Plain values as a YAML text that `read_yaml` reads, keys in their order."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.width = 110
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.dump(values, stream := io.StringIO())
    return stream.getvalue()


@dataclass
class _Tree:
    place: Place
    problems: Problems
    values: int = 0
    open_nodes: set[int] = field(default_factory=set)  # that an alias must not point back to
    checked: set[int] = field(default_factory=set)

    def entry(self, node: Node, place: Place, *, level: int) -> Entry:
        self.values += 1
        if self.values > MOST_VALUES:
            self.problems.stop(place, f"must have at most {MOST_VALUES:,} values, but aliases repeat more")
        if level > MOST_LEVELS:
            self.problems.stop(place, _TOO_DEEP)
        if isinstance(node, ScalarNode):
            return Entry(self._scalar(node, place), place)
        if id(node) in self.open_nodes:
            self.problems.add(place, "an alias must not stand inside of what it repeats")
            return Entry(None, place)
        self.open_nodes.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return Entry([self.entry(one, self._at(one), level=level + 1) for one in node.value], place)
            assert isinstance(node, MappingNode)
            return Entry(self._mapping(node, level=level), place)
        finally:
            self.open_nodes.remove(id(node))

    def _mapping(self, node: MappingNode, *, level: int) -> dict[str, Entry]:
        if id(node) not in self.checked:
            self.checked.add(id(node))
            self._refuse_duplicates(node)
        entries: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            place = self._at(key_node)
            if key_node.tag == f"{_TAG}merge":
                self.problems.add(place, "`<<` is no key of YAML 1.2; give its keys, or extend a recipe")
                continue
            key = self._scalar(key_node, place) if isinstance(key_node, ScalarNode) else None
            if isinstance(key, str):
                entries[key] = self.entry(value_node, place, level=level + 1)
            else:
                shown = key_node.value
                what = f"{shown!r} is read as {key!r}" if isinstance(shown, str) else "is a list or a mapping"
                self.problems.add(place, f"a key must be text, but {what}; write it in quotes")
        return entries

    def _refuse_duplicates(self, node: MappingNode) -> None:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, ScalarNode) or key_node.tag == f"{_TAG}merge":
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in lines:
                first = f" (first in line {lines[key_node.value]})" if self.place.line is not None else ""
                text = f"a key must be given once, but {key_node.value!r} is there twice{first}; remove one"
                self.problems.add(self._at(key_node), text)
            lines[key_node.value] = line

    def _scalar(self, node: ScalarNode, place: Place) -> Scalar:
        """A value of the core schema: `yes`, 1:30 and 2026-01-01 are texts, 0777 is 777."""
        text: str = node.value
        if node.tag not in _TAGS:
            tag = str(node.tag).replace(_TAG, "!!")
            self.problems.add(place, f"must be plain YAML, but has the tag {tag!r}; remove it")
            return None
        if node.style is not None or node.tag == f"{_TAG}str":
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INTEGER.fullmatch(text):
            # Any number of a hundred digits is refused as too large; int() fails with thousands.
            return int(text[:100], 0 if text[:2] in ("0o", "0x") else 10)
        if _FLOAT.fullmatch(text):
            return float(text.replace(".", "", 1) if text[-3:].lower() in ("inf", "nan") else text)
        return text

    def _at(self, node: Node) -> Place:
        if self.place.line is None:
            return self.place
        return Place(self.place.source, node.start_mark.line + 1, self.place.folder)
