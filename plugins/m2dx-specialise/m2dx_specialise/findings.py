"""What the audit tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Severity = Literal["no verdict", "warning", "note"]
"""Without mending it there is no verdict; scores would be wrong, or are; good to know."""
SEVERITIES = get_args(Severity)


def named(path: Path) -> str:
    """A file with its folder, as names may come twice."""
    return "/".join(path.parts[-2:])


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    kind: str  # such as "duplicates", "hum" or "confound"
    severity: Severity
    text: str  # a sentence
    paths: tuple[Path, ...]  # the files concerned, each once
    advice: str  # what to do, or what is done
