"""Where in a recipe the field stands that an error speaks of, for errors that are found after it was read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from m2dx.contract.errors import RecipeError
from m2dx.contract.paths import expand
from m2dx.recipe.document import Entry, Place, Problems, nearest
from m2dx.recipe.files import apply_overrides, read_recipe

_FIELD = re.compile(
    r"\b(?:(?:audio|data|evaluation|image|model|noise|tasks|train)\.[\w.-]*\w|init_from)\b(?!\.\w)"
    r"|evaluation task '(?P<task>[^']+)'|data set '(?P<set>[^']+)'|^(?P<masking>masking) "
)
_PLACED = re.compile(r"^(?:\S[^:]*:\d+|override \d+): ")


def with_places(text: str, path: Path, overrides: Sequence[str]) -> str:
    """An error's text, each line with the place of the first field of the recipe that it names: `file:line: `.

    A line that names none has the place of a path of the recipe that it names. Lines stay as they are that have a
    place, continue the line before, or name neither.
    """
    try:
        root = apply_overrides(read_recipe(path, problems=Problems()), overrides, problems=Problems())
    except (RecipeError, OSError):  # which is what the text says
        return text
    lines = ((line, _place(line, root)) for line in text.splitlines())
    return "\n".join(line if place is None else f"{place}: {line}" for line, place in lines)


def _place(line: str, root: Entry) -> Place | None:
    if line[:1].isspace() or _PLACED.match(line):
        return None
    found = _FIELD.search(line)
    if found is None:
        named = (place for name, place in _paths(root) if re.search(rf"{re.escape(name)}(?![\w/])", line))
        return next(named, None)
    keys = found[0].split(".")
    if found["masking"]:
        keys = ["model", "masking"]
    elif found["task"]:
        keys = ["evaluation", "tasks", found["task"]]
    elif found["set"]:
        keys = ["data", "sets", found["set"]]
        if nearest(root, keys) is nearest(root, keys[:-1]):  # a labelled task's
            keys = ["evaluation", "tasks", found["set"]]
    return nearest(root, keys).place


def _paths(entry: Entry) -> Iterator[tuple[str, Place]]:
    """The texts below an entry as the paths that they stand for where they are paths."""
    value = entry.value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _paths(child)
    if isinstance(value, str) and value:
        with contextlib.suppress(ValueError):
            yield str(expand(value, folder=entry.place.folder)), entry.place
