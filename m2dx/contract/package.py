"""What comes with m2dx as a package: its version, for every room that writes it down, and an encoder with a name."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

STARTER = Path(__file__).parents[1] / "encoder" / "starter"
"""The export in the package; the folder's name stands for it where an encoder is wanted."""


def find_encoder(text: str | Path) -> Path:
    """The path of an encoder. The text `starter` is the one in the package; a file of that name is `./starter`."""
    return STARTER if text == STARTER.name else Path(text)


def package_version(package: str = "m2dx") -> str:
    """The installed version of a package; "unknown" where it is run from a source tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
