"""Names of runs from what is swept: readable, stable, and fit for a recipe's `name` (letters, digits, _ and -)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

import yaml

from m2dx.sweep.grid import KEEP

LONGEST = 100
"""Characters of a name; longer ones are cut, and end in a digest of the whole."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,40}")


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
    """The name of the run with these values (texts, by key), such as `mask_ratio-0p6-seed-1`."""
    short = short_keys(list(values))
    parts = [f"{_letters(short[key])}-{_value(text)}" for key, text in values.items()]
    return shortened("-".join(parts))


def sweep_name(recipe: str, keys: Sequence[str]) -> str:
    """The name of the sweep of a recipe over some keys, such as `lungs-mask_ratio`."""
    return shortened("-".join([recipe, *map(_letters, short_keys(keys).values())]))


def shortened(name: str) -> str:
    """The name, cut where it is too long for a folder's."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{_digest(name)}"


def _value(text: str) -> str:
    if text == KEEP:
        return KEEP
    value = yaml.safe_load(text)
    if isinstance(value, list) and value and all(map(_is_number, value)):
        return "x".join(map(_number, value))  # [16, 4] -> 16x4
    if isinstance(value, bool | None):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str | int | float) and _is_number(value):
        return _number(value)
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    digest = _digest(json.dumps(value, sort_keys=True, default=str))
    head = (
        value.get("name")
        if isinstance(value, dict)
        else PurePath(value).stem
        if isinstance(value, str)
        else ""
    )
    return "-".join(part for part in (_letters(str(head or ""))[-24:], digest) if part)


def _is_number(value: object) -> bool:
    """Whether it is read as a number in the end: YAML takes 1e-4 for text, a recipe's fields do not."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _number(value: str | int | float) -> str:
    number = value if isinstance(value, int) else float(value)
    text = (
        str(int(number))
        if isinstance(number, float) and number.is_integer() and abs(number) < 1e15
        else repr(number)
    )
    return _letters(text.replace(".", "p").replace("+", ""))


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
