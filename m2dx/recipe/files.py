"""Recipe files: reading, what they extend, and overrides from the command line."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from m2dx.contract.errors import RecipeError
from m2dx.contract.paths import check_regular, expand
from m2dx.recipe.document import Entry, Place, Problem, merge, nearest, plain, read_yaml, report

MOST_EXTENDED = 20
"""Files in a row, each of which extends the next, at most."""
MOST_BYTES = 2**20


def read_recipe(path: Path, *, problems: list[Problem]) -> Entry:
    """A recipe file on top of the files that it extends, one after the other.

    The run's `name` is not inherited, since variants must not share a folder. Raises `RecipeError` for a file that
    cannot be read at all; other problems are added to the list.
    """
    chain: dict[Path, Entry] = {}
    _add_to_chain(chain, path, named_at=None, problems=problems, extended_by=())
    *bases, own = chain.values()
    for base in bases:
        assert isinstance(base.value, dict)
        base.value.pop("name", None)
    return functools.reduce(merge, [*bases, own])


def _add_to_chain(
    chain: dict[Path, Entry],
    path: Path,
    *,
    named_at: Place | None,
    problems: list[Problem],
    extended_by: tuple[Path, ...],
) -> None:
    """Adds what a file extends, then its own root, by resolved path; a file that is there already is not read again."""
    place = Place(str(path), 1, path.parent)
    root = read_yaml(_text(path, named_at or place, problems), place=place, problems=problems)
    if root is None or root.value is None:
        _stop(problems, place, "must be a recipe, but is empty; a recipe has at least `data` or `extends`")
    if not isinstance(root.value, dict):
        _stop(
            problems, place, f"must be a mapping of sections (`data:`, `model:`, ...), but is {_shown(root)}"
        )
    sections = dict(root.value)
    extends = sections.pop("extends", None)
    own = Entry(sections, place)
    files = (*extended_by, path)
    if len(files) > MOST_EXTENDED:
        _stop(problems, place, f"extends must go over at most {MOST_EXTENDED} files, but goes on")
    for named in _named(extends):
        base = _base(path, named, problems)
        if base.resolve() in [file.resolve() for file in files]:
            _stop(
                problems,
                named.place,
                f"extends must not come back to a file: {' -> '.join(map(str, (*files, base)))}",
            )
        if base.resolve() not in chain:
            _add_to_chain(chain, base, named_at=named.place, problems=problems, extended_by=files)
    chain[path.resolve()] = own


def _named(extends: Entry | None) -> list[Entry]:
    if extends is None:
        return []
    return extends.value if isinstance(extends.value, list) else [extends]


def _base(path: Path, extends: Entry, problems: list[Problem]) -> Path:
    if not isinstance(extends.value, str):
        _stop(
            problems,
            extends.place,
            f"extends must be the path of a recipe file, or a list of such paths, but is {_shown(extends)}",
        )
    try:
        base = expand(extends.value, folder=path.parent)
    except ValueError as error:
        _stop(problems, extends.place, f"extends: {error}")
    # In errors, files are named the way the user named the first one.
    here = Path.cwd()
    return base if path.is_absolute() or not base.is_relative_to(here) else base.relative_to(here)


def _shown(entry: Entry) -> str:
    return f"{plain(entry)!r:.60}"


def _text(path: Path, named_at: Place, problems: list[Problem]) -> str:
    extends = "" if named_at.source == str(path) else f"extends: {path} "
    place = named_at if extends else Place(str(path), None, path.parent)
    try:
        check_regular(path)
        if path.stat().st_size > MOST_BYTES:
            _stop(
                problems, place, f"{extends}must be a recipe, but has more than {MOST_BYTES / 2**20:.0f} MiB"
            )
        return path.read_text("utf-8-sig")
    except OSError as error:
        _stop(problems, place, f"{extends}cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        _stop(problems, place, f"{extends}must be UTF-8 text, but byte {error.start} is not")


def apply_overrides(root: Entry, overrides: Sequence[str], *, problems: list[Problem]) -> Entry:
    """The recipe with each `key.path=value` on top, in order; the value is YAML."""
    for number, text in enumerate(overrides, start=1):
        place = Place(f"override {number}: {text}", None, Path())
        override = _override(root, text, place, problems)
        if override is not None:
            root = merge(root, override)
    return root


def _override(root: Entry, text: str, place: Place, problems: list[Problem]) -> Entry | None:
    path, equals, value_text = text.partition("=")
    keys = path.strip().split(".")
    if not equals:
        problems.append(Problem(place, "must be key.path=value, but has no `=`"))
    elif not all(keys) or any(key != key.strip() for key in keys):
        problems.append(Problem(place, f"must have keys between dots, but the path is {path!r}"))
    elif not value_text.strip():
        problems.append(Problem(place, "must have a value after `=`; write null for none"))
    else:
        value = read_yaml(value_text, place=place, problems=problems) or Entry(None, place)
        if (lost := _lost(root, keys, value)) is None:
            for key in reversed(keys):
                value = Entry({key: value}, place)
            return value
        problems.append(
            Problem(place, f"must come before {lost.source!r}, since another component has other options")
        )
    return None


def _lost(root: Entry, keys: list[str], value: Entry) -> Place | None:
    """An earlier override that naming a component, by its section's `name` or in its place, would silently undo."""
    if len(keys) > 1 and keys[-1] == "name":
        keys = keys[:-1]
    elif not isinstance(value.value, str):
        return None
    section = nearest(root, keys)
    if section is nearest(root, keys[:-1]) or not isinstance(section.value, dict):
        return None
    places = [entry.place for key, entry in section.value.items() if key != "name"]
    return next((place for place in places if place.line is None), None)


def _stop(problems: list[Problem], place: Place, text: str) -> NoReturn:
    raise RecipeError(report([*problems, Problem(place, text)]))
