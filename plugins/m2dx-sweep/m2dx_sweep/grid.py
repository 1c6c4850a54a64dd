"""The grid of a sweep, from `key.path=a,b,c` arguments, and the names of its runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from m2dx.contract.errors import RecipeError
from m2dx.recipe.document import Place, Problems, plain_yaml, read_yaml

KEEP = "keep"
"""Stands for the recipe's own value."""
SEED = "seed"
"""Tables pool the values of this key."""
LONGEST = 100
"""Characters of a name; a longer name is cut, and ends in a digest of the whole."""

# Quoted text, then text with a quote inside (it's), then any other character.
_PARTS = re.compile(r""""(?:\\.|[^"\\])*"|'(?:''|[^'])*'|[^\s,\[\]{}:"'][^,\[\]{}:]*|.""", re.DOTALL)


@dataclass(frozen=True)
class Axis:
    """One argument: a key with its values, or several keys whose values change together."""

    keys: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]  # for each choice, a YAML text (or `keep`) per key


@dataclass(frozen=True)
class Grid:
    """All arguments as typed, in their order; one with a single value holds at every point."""

    arguments: tuple[Axis, ...]

    @property
    def swept(self) -> list[tuple[str, ...]]:
        """The keys of each argument with several values."""
        return [axis.keys for axis in self.arguments if len(axis.values) > 1]

    def choices(self) -> Iterator[dict[str, str]]:
        """Key -> value of each point, in the order of the arguments; the last one changes fastest."""
        for chosen in itertools.product(*(axis.values for axis in self.arguments)):
            keys = [axis.keys for axis in self.arguments]
            yield dict(zip(itertools.chain(*keys), itertools.chain(*chosen), strict=True))


def parse_grid(arguments: Sequence[str]) -> Grid:
    """The grid of `key.path=a,b,c` arguments; each value is YAML, as in an override.

    Commas separate values, unless they are in brackets, braces or quotes. `a+b=[1, x],[2, y]` changes two keys
    together. Raises RecipeError with a line for every wrong argument.
    """
    problems = Problems()
    axes, seen = [], set[str]()
    for number, text in enumerate(arguments, start=1):
        place = Place(f"argument {number}: {text}", None, Path())
        try:
            axis = _axis(text, place)
            if not seen.isdisjoint(axis.keys) or len(set(axis.keys)) < len(axis.keys):
                raise ValueError("a key must be given once; give all its values at once")
            seen.update(axis.keys)
            axes.append(axis)
        except ValueError as error:
            problems.add(place, str(error))
        except RecipeError as error:
            problems.add(place, str(error).removeprefix(f"{place}: "))
    grid = Grid(tuple(axes))
    if not problems and not grid.swept:
        text = (
            "must have a key with several values, such as model.mask_ratio=0.6,0.7, but has none; a single run is "
            "trained with `m2dx train`"
        )
        problems.add(Place("m2dx sweep", None, Path()), text)
    if problems:
        raise problems.error()
    return grid


def _axis(text: str, place: Place) -> Axis:
    left, equals, right = text.partition("=")
    if not equals:
        raise ValueError("must be key.path=value,value,..., but has no `=`")
    keys = tuple(left.split("+"))
    for key in keys:
        if not all(key.split(".")) or key != "".join(key.split()):
            raise ValueError(f"must have keys between dots, but the path is {key!r}")
    rows = []
    for item in split_values(right):
        values = (item,) if len(keys) == 1 else tuple(split_values(item[1:-1]))
        if len(values) != len(keys) or (len(keys) > 1 and not (item.startswith("[") and item.endswith("]"))):
            raise ValueError(
                f"each value must be a list of {len(keys)}, a value for each key, such as "
                f"[{', '.join(map(str, range(1, len(keys) + 1)))}], but is {item!r}"
            )
        if "" in values:
            text = (
                "must have a value before and after each comma; write null for none, or keep for the recipe's"
            )
            raise ValueError(text)
        rows.append(values)
    for value in itertools.chain(*rows):
        problems = Problems()
        read_yaml(value, place=place, problems=problems)
        if problems:
            raise problems.error()
    for key in ("name", "output"):
        if key in keys and (len(keys) > 1 or len(rows) > 1):
            raise ValueError(
                f"{key} must have one value alone, which is that of the sweep; its runs are named by their values"
            )
    if SEED in keys and len(keys) > 1:
        raise ValueError("seed must stand alone, since the runs of all seeds are pooled")
    return Axis(keys, tuple(rows))


def split_values(text: str) -> list[str]:
    """The parts between commas outside brackets, braces and quotes, without the spaces around them."""
    parts, level = [""], 0
    for part in _PARTS.findall(text):
        level += (part in ("[", "{")) - (part in ("]", "}"))
        if part == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += part
    return [part.strip() for part in parts]


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Key -> its last part, or as many parts as distinguish it from the others (`hubert.weight`)."""

    def end(key: str, count: int) -> list[str]:
        return key.split(".")[-count:]

    short = {}
    for key in keys:
        counts = range(1, key.count(".") + 2)
        enough = (n for n in counts if sum(end(other, n) == end(key, n) for other in keys) == 1)
        short[key] = ".".join(end(key, next(enough, counts[-1])))
    return short


def run_name(values: Mapping[str, str]) -> str:
    """The name of the run with these values (texts, by key), such as `mask_ratio-0p6-seed-1`.

    The name is readable and stable, and a valid `name` of a recipe: letters, digits, _ and -.
    """
    short = short_keys(list(values))
    return _shortened("-".join(f"{_letters(short[key])}-{value_name(text)}" for key, text in values.items()))


def sweep_name(recipe: str, keys: Sequence[str]) -> str:
    """The name of the sweep of a recipe over some keys, such as `lungs-mask_ratio`."""
    named = [key for key in keys if key != SEED] or list(keys)
    return _shortened("-".join([recipe, *map(_letters, short_keys(named).values())]))


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{_digest(name)}"


def value_name(text: str) -> str:
    """A value's part of a run's name, whichever way it is typed: `0p7` of 0.7 and of 0.70."""
    value = plain_yaml(text)
    items = value if isinstance(value, list) and value else [value]
    numbers = [_number(item) for item in items]
    if None not in numbers:
        return "x".join(filter(None, numbers))  # [16, 4] -> 16x4
    if isinstance(value, bool | None):
        return json.dumps(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", value):
        return value
    head = PurePath(value).stem if isinstance(value, str) else ""
    if isinstance(value, dict):
        head = str(value.get("name", ""))
    digest = _digest(json.dumps(value, sort_keys=True, default=str))
    return "-".join(filter(None, (_letters(head)[-24:], digest)))


def _number(value: object) -> str | None:
    """The text of a number, also of one in quotes, since recipe fields accept both; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if isinstance(value, int) or (number.is_integer() and abs(number) < 1e15):
        return str(int(value if isinstance(value, int) else number))
    return _letters(repr(number).replace(".", "p").replace("+", ""))


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
