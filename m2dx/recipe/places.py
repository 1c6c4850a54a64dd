"""Where in a recipe the field stands that an error speaks of, for errors that are found after it was read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from m2dx.contract.errors import RecipeError
from m2dx.contract.paths import expand
from m2dx.recipe.document import Entry, Place, Problems, nearest
from m2dx.recipe.files import apply_overrides, read_recipe

_FIELD = re.compile(
    r"\b(?:(?:audio|augmentations|data|evaluation|image|model|noise|tasks|train)\.[\w.-]*\w|init_from|weight_map)\b(?!\.\w)"
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
        return next((place for text, place in _texts(root) if _names(line, text, place)), None)
    keys: list[str | int] = [int(key) if key.isdecimal() else key for key in found[0].split(".")]
    if found["masking"]:
        keys = ["model", "masking"]
    elif found["task"]:
        keys = ["evaluation", "tasks", found["task"]]
    elif found["set"]:
        keys = ["data", "sets", found["set"]]
        if nearest(root, keys) is nearest(root, keys[:-1]):  # a labelled task's
            keys = ["evaluation", "tasks", found["set"]]
    entry = nearest(root, keys)  # where it is a section, an override of a field in it is what is new
    return next((place for _, place in _texts(entry) if place.line is None), entry.place)


def _texts(entry: Entry) -> Iterator[tuple[str, Place]]:
    """The values below an entry, as texts, with their places."""
    value = entry.value
    if not isinstance(value, dict | list):
        yield str(value), entry.place
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(child)


def _names(line: str, text: str, place: Place) -> bool:
    """Whether a line names the path that a text of the recipe stands for."""
    try:
        path = str(expand(text, folder=place.folder))
    except ValueError:
        return False
    return re.search(rf"{re.escape(path)}(?![\w/])", line) is not None
