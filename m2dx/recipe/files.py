"""Recipe files: reading, what they extend, and overrides from the command line."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from m2dx.contract.paths import check_regular, expand
from m2dx.recipe.document import Entry, Place, Problems, merge, nearest, plain, read_yaml

MOST_EXTENDED = 20  # files in a row, each of which extends the next, at most
MOST_BYTES = 2**17


def read_recipe(path: Path, *, problems: Problems | None = None) -> Entry:
    """A recipe file on top of the files that it extends, one after the other.

    The run's `name` is not inherited, since variants must not share a folder. Raises `RecipeError` for a file that
    cannot be read at all; other problems are added to the list.
    """
    chain: dict[Path, Entry] = {}
    found = Problems() if problems is None else problems
    _add_to_chain(chain, (path,), Place(str(path), None, path.parent), found)
    *bases, own = chain.values()
    for base in bases:
        assert isinstance(base.value, dict)
        base.value.pop("name", None)
    return functools.reduce(merge, [*bases, own])


def _add_to_chain(
    chain: dict[Path, Entry], files: tuple[Path, ...], named_at: Place, problems: Problems
) -> None:
    """Adds what the last file extends, then its own root, by resolved path, each once; each file extends the next."""
    path = files[-1]
    place = Place(str(path), 1, path.parent)
    root = read_yaml(_text(files, named_at, problems), place=place, problems=problems)
    if root is None or root.value is None:
        problems.stop(place, "must be a recipe, but is empty; a recipe has at least `data` or `extends`")
    if not isinstance(root.value, dict):
        shown = _shown(root)
        problems.stop(place, f"must be a mapping of sections (`data:`, `model:`, ...), but is {shown}")
    if len(files) > MOST_EXTENDED:
        problems.stop(place, f"extends must go over at most {MOST_EXTENDED} files, but goes on")
    sections = dict(root.value)
    extends = sections.pop("extends", Entry([], place))
    for named in extends.value if isinstance(extends.value, list) else [extends]:
        base = _base(path, named, problems)
        if base.resolve() in [file.resolve() for file in files]:
            circle = " -> ".join(map(str, (*files, base)))
            problems.stop(named.place, f"extends must not come back to a file: {circle}")
        if base.resolve() not in chain:
            _add_to_chain(chain, (*files, base), named.place, problems)
    chain[path.resolve()] = Entry(sections, place)


def _base(path: Path, extends: Entry, problems: Problems) -> Path:
    if not isinstance(extends.value, str):
        text = f"the path of a recipe file, or a list of such paths, but is {_shown(extends)}"
        problems.stop(extends.place, f"extends must be {text}")
    try:
        base = expand(extends.value, folder=path.parent)
    except ValueError as error:
        problems.stop(extends.place, f"extends: {error}")
    # In errors, files are named the way the user named the first one.
    here = Path.cwd()
    return base if path.is_absolute() or not base.is_relative_to(here) else base.relative_to(here)


def _shown(entry: Entry) -> str:
    return f"{plain(entry)!r:.60}"


def _text(files: tuple[Path, ...], named_at: Place, problems: Problems) -> str:
    path = files[-1]
    extends = f"extends: {path} " if len(files) > 1 else ""
    try:
        check_regular(path)
        if path.stat().st_size > MOST_BYTES:
            most = f"{MOST_BYTES / 2**10:.0f} KiB"
            problems.stop(named_at, f"{extends}must be a recipe, but has more than {most}")
        return path.read_text("utf-8-sig")
    except OSError as error:
        problems.stop(named_at, f"{extends}cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.stop(named_at, f"{extends}must be UTF-8 text, but byte {error.start} is not")


def apply_overrides(root: Entry, overrides: Sequence[str], *, problems: Problems) -> Entry:
    """The recipe with each `key.path=value` on top, in order; the value is YAML."""
    for number, text in enumerate(overrides, start=1):
        place = Place(f"override {number}: {text}", None, Path())
        path, equals, value_text = text.partition("=")
        keys = path.strip().split(".")
        if not equals:
            problems.add(place, "must be key.path=value, but has no `=`")
        elif not all(keys) or any(key != key.strip() for key in keys):
            problems.add(place, f"must have keys between dots, but the path is {path!r}")
        elif not value_text.strip():
            problems.add(place, "must have a value after `=`; write null for none")
        else:
            value = read_yaml(value_text, place=place, problems=problems) or Entry(None, place)
            if (lost := _lost(root, keys, value)) is not None:
                text = f"must come before {lost.source!r}, since another component has other options"
                problems.add(place, text)
                continue
            for key in reversed(keys):
                value = Entry({key: value}, place)
            root = merge(root, value)
    return root


def _lost(root: Entry, keys: list[str], value: Entry) -> Place | None:
    """An earlier override that naming a component, by a section with a `name` or in its place, would silently undo."""
    if len(keys) > 1 and keys[-1] == "name":
        keys = keys[:-1]
    elif not isinstance(value.value, str) and not (isinstance(value.value, dict) and "name" in value.value):
        return None
    section = nearest(root, keys)
    if section is nearest(root, keys[:-1]) or not isinstance(section.value, dict):
        return None
    given = {"name", *(value.value if isinstance(value.value, dict) else ())}
    places = [entry.place for key, entry in section.value.items() if key not in given]
    return next((place for place in places if place.line is None), None)
