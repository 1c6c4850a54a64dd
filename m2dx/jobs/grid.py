"""The grid of a sweep, from `key.path=a,b,c` arguments, and the names of its runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from m2dx.contract.errors import RecipeError
from m2dx.recipe.document import Place, Problem, plain_yaml, read_yaml, report

KEEP = "keep"
"""In place of a value: as it is in the recipe."""
SEED = "seed"
"""The key whose values are pooled in tables."""
LONGEST = 100
"""Characters of a name; longer ones are cut, and end in a digest of the whole."""

_CLOSING = {"[": "]", "{": "}"}
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class Axis:
    """One argument: a key with its values, or several keys whose values change together."""

    keys: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]  # of each choice, a YAML text (or `keep`) per key


@dataclass(frozen=True)
class Grid:
    """All arguments in the order in which they were typed; those with a single value are the same in every point."""

    arguments: tuple[Axis, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The arguments with several values."""
        return tuple(axis for axis in self.arguments if len(axis.values) > 1)

    @property
    def swept(self) -> list[str]:
        """The keys of the axes."""
        return [key for axis in self.axes for key in axis.keys]

    @property
    def is_named(self) -> bool:
        """Whether `name=` gives the sweep a name."""
        return any(axis.keys == ("name",) for axis in self.arguments)

    def choices(self) -> Iterator[dict[str, str]]:
        """Key -> value of each point, in the order of the arguments; the last one changes fastest."""
        for chosen in itertools.product(*(axis.values for axis in self.arguments)):
            yield {
                key: value
                for axis, values in zip(self.arguments, chosen, strict=True)
                for key, value in zip(axis.keys, values, strict=True)
            }


def parse_grid(arguments: Sequence[str]) -> Grid:
    """The grid of `key.path=a,b,c` arguments; each value is YAML, as in an override.

    Commas divide values, unless they are in brackets, braces or quotes. `a+b=[1, x],[2, y]` changes two keys together.
    RecipeError with a line for every argument that is wrong.
    """
    problems: list[Problem] = []
    parsed = []
    for number, text in enumerate(arguments, start=1):
        place = Place(f"argument {number}: {text}", None, Path())
        try:
            parsed.append(_axis(text, place))
        except ValueError as error:
            problems.append(Problem(place, str(error)))
        except RecipeError as error:
            problems += [Problem(place, line.removeprefix(f"{place}: ")) for line in str(error).splitlines()]
    grid = Grid(tuple(parsed))
    command = Place("m2dx sweep", None, Path())
    for key, count in Counter(key for axis in grid.arguments for key in axis.keys).items():
        if count > 1:
            text = f"a key must be given once, but {key} is given {count} times; give all its values at once"
            problems.append(Problem(command, text))
    if not problems and not grid.axes:
        text = (
            "must have a key with several values, such as model.mask_ratio=0.6,0.7, but has none; a single run is "
            "trained with `m2dx train`"
        )
        problems.append(Problem(command, text))
    if problems:
        raise RecipeError(report(problems))
    return grid


def _axis(text: str, place: Place) -> Axis:
    left, equals, right = text.partition("=")
    if not equals:
        raise ValueError("must be key.path=value,value,..., but has no `=`")
    keys = tuple(left.split("+"))
    for key in keys:
        if not all(key.split(".")) or key != "".join(key.split()):
            raise ValueError(f"must have keys between dots, but the path is {key!r}")
    items = split_values(right)
    if "" in items:
        raise ValueError(
            "must have a value before and after each comma; write null for none, or keep for the recipe's"
        )
    rows = [(item,) if len(keys) == 1 else _together(item, keys) for item in items]
    for value in itertools.chain(*rows):
        problems: list[Problem] = []
        read_yaml(value, place=place, problems=problems)
        if problems:
            raise RecipeError(report(problems))
    for key in ("name", "output"):
        if key in keys and (len(keys) > 1 or len(rows) > 1):
            raise ValueError(
                f"{key} must have one value alone, which is that of the sweep; its runs are named by their values"
            )
    if SEED in keys and len(keys) > 1:
        raise ValueError("seed must stand alone, since the runs of all seeds are pooled")
    return Axis(keys, tuple(rows))


def _together(item: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    values = split_values(item[1:-1]) if item.startswith("[") and item.endswith("]") else []
    if len(values) != len(keys) or "" in values:
        raise ValueError(
            f"each value must be a list of {len(keys)}, a value for each key, such as "
            f"[{', '.join(map(str, range(1, len(keys) + 1)))}], but is {item!r}"
        )
    return tuple(values)


def split_values(text: str) -> list[str]:
    """The parts between commas that are not in brackets, braces or quotes, without the spaces around them.

    ValueError where a bracket or a quote is not closed, or closes nothing.
    """
    parts, nesting, quote, start = [], [], "", 0
    before = ","  # the last sign that is no space, outside of quotes: a quote opens only where a value begins
    position = 0
    while position < len(text):
        sign = text[position]
        if quote:
            if (quote == '"' and sign == "\\") or text[position : position + 2] == "''" == quote * 2:
                position += 1
            elif sign == quote:
                quote, before = "", sign
        elif sign in "\"'" and before in ",[{:":
            quote = sign
        elif sign in _CLOSING:
            nesting.append(_CLOSING[sign])
        elif sign in _CLOSING.values() and (not nesting or nesting.pop() != sign):
            raise ValueError(
                f"must have brackets and braces in pairs, but this {sign!r} closes none; write text in quotes"
            )
        elif sign == "," and not nesting:
            parts.append(text[start:position].strip())
            start = position + 1
        if not quote and not sign.isspace():
            before = sign
        position += 1
    if quote or nesting:
        raise ValueError(
            f"must close its brackets and quotes, but lacks {quote or nesting[-1]!r}; write text in quotes"
        )
    return [*parts, text[start:].strip()]


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Key -> its last part, or as many parts as tell it from the others (`hubert.weight`)."""
    short = {}
    for key in keys:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            end = parts[-count:]
            if sum(other.split(".")[-count:] == end for other in keys) == 1:
                break
        short[key] = ".".join(end)
    return short


def run_name(values: Mapping[str, str]) -> str:
    """The name of the run with these values (texts, by key), such as `mask_ratio-0p6-seed-1`.

    It is readable, stable, and fit for a recipe's `name`: letters, digits, _ and -.
    """
    short = short_keys(list(values))
    return _shortened("-".join(f"{_letters(short[key])}-{_value(text)}" for key, text in values.items()))


def sweep_name(recipe: str, keys: Sequence[str]) -> str:
    """The name of the sweep of a recipe over some keys, such as `lungs-mask_ratio`."""
    named = [key for key in keys if key != SEED] or list(keys)
    return _shortened("-".join([recipe, *map(_letters, short_keys(named).values())]))


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{_digest(name)}"


def _value(text: str) -> str:
    if text == KEEP:
        return KEEP
    value = plain_yaml(text)
    if isinstance(value, list) and value and all(map(_is_number, value)):
        return "x".join(map(_number, value))  # [16, 4] -> 16x4
    if isinstance(value, bool | None):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str | int | float) and _is_number(value):
        return _number(value)
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    head = value.get("name") if isinstance(value, dict) else ""
    if isinstance(value, str):
        head = PurePath(value).stem
    digest = _digest(json.dumps(value, sort_keys=True, default=str))
    return "-".join(part for part in (_letters(str(head or ""))[-24:], digest) if part)


def _is_number(value: object) -> bool:
    """Whether it is read as a number in the end: a recipe's fields take one in quotes, too."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _number(value: str | int | float) -> str:
    number = value if isinstance(value, int) else float(value)
    whole = isinstance(number, float) and number.is_integer() and abs(number) < 1e15
    text = str(int(number)) if whole else repr(number)
    return _letters(text.replace(".", "p").replace("+", ""))


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
