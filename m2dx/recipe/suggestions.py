"""What may have been meant by a name that is not known."""

import difflib
from collections.abc import Iterable

MOST_LISTED = 30


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint that follows an error's text: the nearest known name, or all of them when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "there are none"
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"known: {', '.join(names[:MOST_LISTED])}{more}"
