"""What messages say: names that may have been meant, problems in a line, and numbers, times and sizes for people."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

MOST_LISTED = 30


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint that follows an error's text: the nearest known name, or all of them when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "there are none"
    return f"known: {some_of(names, most=MOST_LISTED)}"


def some_of(names: Iterable[str], *, most: int = 5) -> str:
    """The first few, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def noise_name(sets: Collection[str]) -> str:
    """What the noise is called beside data sets of these names."""
    name = "noise"
    while name in sets:
        name += "_"
    return name


def problem_of(error: BaseException) -> str:
    """What is wrong, in a line: the first problem that pydantic found with its field, or the error's text."""
    from pydantic import ValidationError  # which not everything that says words needs

    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        text = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    else:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        text = f"{kind}{error}".removesuffix(": ")
    return " ".join(text.removeprefix("Value error, ").split())[:500]


def number(value: object) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def clock(seconds: float) -> str:
    """Seconds as 0:45, 7:11 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def hours_text(hours: float) -> str:
    """Hours for people, with minutes where there are few."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"


def counted(count: int | None, what: str) -> str:
    """Such as "1 score", "3 classes", or "an unknown number of scores" for None."""
    number = "an unknown number of" if count is None else f"{count:,}"
    return f"{number} {what}" if count == 1 else f"{number} {what}{'es' if what.endswith('s') else 's'}"


def gigabytes(count: float) -> str:
    """Such as "3.42 GB", or "78 MB" below a tenth of one; 1 GB is 2^30 bytes, as the sizes of GPUs are told."""
    gb = count / 2**30
    return f"{gb:.2f} GB" if abs(gb) >= 0.1 else f"{count / 2**20:.0f} MB"
