"""What the audit tells."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Severity(Enum):
    """How much depends on it, the gravest first."""

    STOP = "stop"
    """Without mending it there is no verdict."""
    WARNING = "warning"
    """Scores would be wrong, or are."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    kind: str  # such as "duplicates", "hum" or "confound"
    severity: Severity
    text: str  # a sentence
    paths: tuple[Path, ...]
    """The files concerned, each once."""
    advice: str  # what to do, or what is done
