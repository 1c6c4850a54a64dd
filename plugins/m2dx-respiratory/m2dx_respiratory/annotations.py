"""Annotated stretches of recordings, in one form for all data sets, with every problem of a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Stretch:
    """One annotated stretch of a recording: a respiratory cycle or an event."""

    where: str  # the file, and the line or the place in it
    begin: float  # seconds
    end: float  # seconds
    label: str


@dataclass(frozen=True)
class Annotation:
    """The stretches of one recording, or what is wrong with its file."""

    stretches: tuple[Stretch, ...]
    problems: tuple[str, ...]  # each with the file, and the line or the place in it


def read_text(path: Path) -> str:
    """The text of an annotation file; raises ValueError, with the file, where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text, but is not ({error.reason})") from error


def parse_entries(entries: Iterable[tuple[str, T]], parse: Callable[[str, T], Stretch]) -> Annotation:
    """What `parse` makes of each entry and where it stands; where it raises ValueError for one, there are none."""
    stretches, problems = [], []
    for where, entry in entries:
        try:
            stretches.append(parse(where, entry))
        except ValueError as error:
            problems.append(f"{where}: {error}")
    return Annotation(() if problems else tuple(stretches), tuple(problems))


def seconds(field: str, value: object, *, unit: Literal["seconds", "milliseconds"] = "seconds") -> float:
    """Seconds of a time that a file gives as text or as number; raises ValueError where it is none."""
    time = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            time = float(value)
        except (ValueError, OverflowError):
            time = math.nan
    if not (math.isfinite(time) and time >= 0):
        raise ValueError(f"`{field}` must be a number of {unit}, 0 or more, but is {value!r}")
    return time / 1000 if unit == "milliseconds" else time
