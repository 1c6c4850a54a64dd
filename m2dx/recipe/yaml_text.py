"""YAML text to a tree of values with their lines; every problem that does not stop the reading is collected."""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from m2dx.errors import RecipeError
from m2dx.recipe.document import Entry, Place, Problem, report

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
