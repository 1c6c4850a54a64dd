"""The formats of pictures; apart from the drawing, so that a wrong name is told before anything is imported."""

from __future__ import annotations

from pathlib import Path

from m2dx.errors import M2dxError

SUFFIXES = (".png", ".svg")


def check_picture_path(path: Path) -> None:
    """M2dxError where a picture's file is neither PNG nor SVG by its name."""
    if path.suffix not in SUFFIXES:
        raise M2dxError(
            f"a picture's name must end in .png or .svg, but is {path.name!r}; give it another name (--output)"
        )
