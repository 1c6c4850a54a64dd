"""What the page tells of a run in a line each, worded from its recipe and its summary as plain data."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from m2dx.contract.errors import RecipeError
from m2dx.contract.wording import counted, duration, hours_text, noise_name, number
from m2dx.recipe.document import plain_yaml
from m2dx.report.curves import METHODS
from m2dx.results.run_folder import DataFacts, SetFacts

Fact = tuple[str, str]
"""Title and value."""
_WORDS = resources.files("m2dx.report").joinpath("templates/facts.yaml")
WORDING: dict[str, Any] = plain_yaml(_WORDS.read_text("utf-8"))
"""What the page tells of the summary, the launch and the recipe."""
_FOLDERS = re.compile(r"(?<![\w./:~])(/[^/\s'\"]+)+/|\b[A-Za-z]:\\+([^\\\s'\"]+\\+)+")
"""Folders of an absolute path, also of Windows, without its last part."""


class _Wording(string.Formatter):
    """Fills in `{dotted.path}` of nested plain data, as people write it; LookupError where there is no value."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        value = find(kwargs, field_name)
        if value is None:
            raise LookupError(field_name)
        return value, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        form = {"hours": hours_text, "duration": duration, "g": "{:g}".format}.get(format_spec, number)
        return ", ".join(map(form, value)) if isinstance(value, list) else form(value)


def facts(lines: Mapping[str, str | list[str]], data: Mapping[str, Any]) -> list[Fact]:
    """Each line's title with the first of its texts whose values are all in the data; without such, it is left out."""
    found = []
    for title, texts in lines.items():
        for text in [texts] if isinstance(texts, str) else texts:
            with suppress(LookupError):
                found.append((title, _Wording().vformat(text, (), data)))
                break
    return found


def recipe_facts(recipe: Mapping[str, Any]) -> list[Fact]:
    """Model, training and tasks in a few lines each; what the recipe lacks is left out."""
    if not section(recipe, "model"):
        return []
    method = find(recipe, "model.method.name") or find(recipe, "model.method")
    rate, batch = find(recipe, "train.base_lr"), find(recipe, "train.batch_size")
    derived = {
        "method": METHODS.get(method, method),
        "ema_decay": None if method == "msm_mae" else find(recipe, "model.ema_decay"),
        "peak_lr": rate * batch / 256 if isinstance(rate, float) and isinstance(batch, int) else None,
    }
    found = facts(WORDING["recipe"], {**recipe, **derived})
    for name, task in section(recipe, "tasks").items():
        found += facts({f"Task {name}": WORDING["task"]}, task)
    return found


def data_facts(recipe: Mapping[str, Any], listed: DataFacts) -> list[Fact]:
    """Each data set that the recipe names or that was listed, the noise last, and what is known of it."""
    noise = section(recipe, "noise")
    sets = section(recipe, "data.sets")
    named = {**sets, **({noise_name(sets): noise} if noise else {})}
    lines = []
    for name in map(str, dict.fromkeys([*named, *listed.by_name])):
        source = section(named, f"{name}.dataset") or section(named, f"{name}.source")
        from_recipe = SetFacts(name, str(source.get("name", "")), find(named, f"{name}.split"))
        facts = listed.by_name.get(name, from_recipe)
        where = next((str(source[key]) for key in ("path", "root", "folder") if source.get(key)), "")
        parts = [f"could not be listed: {facts.error}"] if facts.error else []
        if facts.clips is not None:
            parts.append(f"{counted(facts.clips, 'clip')} in {counted(facts.files or 0, 'file')}")
        if facts.hours is not None:
            parts.append(f"{'about ' if facts.hours_from is not None else ''}{hours_text(facts.hours)} h")
        elif facts.hours_from is not None:
            parts.append("hours not known")
        if facts.labelled:
            parts.append(f"{number(facts.labelled)} labelled, {counted(facts.classes or 0, 'class')}")
        if facts.repeat and facts.repeat > 1:
            parts.append(f"{facts.repeat} x in an epoch")
        parts.append(f"{facts.dataset}{f': {where}' if where else ''}")
        if facts.fingerprint:
            parts.append(f"list {facts.fingerprint}")
        lines.append((f"{name}, {facts.split}" if facts.split else name, "; ".join(filter(None, parts))))
    return lines


def without_folders(own: Iterable[Path | str], known: Iterable[Path | str] = ()) -> Callable[[str], str]:
    """Takes the folders of absolute paths out of a text: paths start at one of the `own` folders, or are the last part.

    Folders with spaces are found where they are those of `own` or of `known` paths.
    """
    mine = [path for path in map(Path, own) if path != path.parent]
    above = {folder for path in {*mine, *map(Path, known)} for folder in (path, *path.parents)}
    start = _one_of(mine)
    spaced = _one_of([folder for folder in above if re.search(r"\s", str(folder))], r"(?:[/\\][^/\\\s'\"]+)*")
    return lambda text: _FOLDERS.sub("…/", spaced.sub("…/", start.sub("", text)))


def _one_of(folders: Iterable[Path], below: str = "") -> re.Pattern[str]:
    """Where a path starts with a folder, and with what is `below`; a line of YAML may break at a space."""
    names = sorted((str(folder) for folder in folders if folder.is_absolute()), key=len, reverse=True)
    either = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in names) or "(?!)"
    return re.compile(rf"(?<![\w./~-])(?:{either}){below}[/\\]")


def absolute_paths(data: Any) -> Iterator[str]:
    """The texts of nested plain data that are absolute paths."""
    if isinstance(data, Mapping | list):
        for item in data.values() if isinstance(data, Mapping) else data:
            yield from absolute_paths(item)
    elif isinstance(data, str) and os.path.isabs(data):
        yield data


def read_recipe_text(text: str) -> dict[str, Any]:
    """The recipe as nested plain data; empty where the text is not a mapping in YAML."""
    try:
        recipe = plain_yaml(text)
    except RecipeError:
        return {}
    return recipe if isinstance(recipe, dict) else {}


def find(data: Any, path: str) -> Any:
    """The value at a dotted path of nested plain data, items of lists by their number; None: it is not there."""
    for key in path.split("."):
        if isinstance(data, list) and key.isdigit():
            data = dict(enumerate(data)).get(int(key))
        else:
            data = data.get(key) if isinstance(data, Mapping) else None
    return data


def section(data: Any, path: str) -> dict[str, Any]:
    """The part at a dotted path of nested plain data; empty where it is not there."""
    part = find(data, path)
    return part if isinstance(part, dict) else {}
