"""The encoder that comes with m2dx, and its name."""

from __future__ import annotations

from pathlib import Path

STARTER = Path(__file__).parents[1] / "encoder" / "starter"
"""The export in the package; the folder's name stands for it where an encoder is wanted."""


def encoder_path(text: str | Path) -> Path:
    """The path of an encoder. The text `starter` is the one in the package; a file of that name is `./starter`."""
    return STARTER if text == STARTER.name else Path(text)
