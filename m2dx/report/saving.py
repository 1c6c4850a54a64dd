"""Writes figures as PNG or SVG files. The check of a file's name comes without matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m2dx.contract.atomic import replace_file
from m2dx.contract.errors import M2dxError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
DOTS_PER_INCH = 150


def check_picture_path(path: Path) -> None:
    """M2dxError where a picture's file is neither PNG nor SVG by its name."""
    if path.suffix not in SUFFIXES:
        raise M2dxError(
            f"a picture's name must end in .png or .svg, but is {path.name!r}; give it another name (--output)"
        )


def save_figure(figure: Figure, path: Path, *, dots_per_inch: int = DOTS_PER_INCH) -> Path:
    """Writes a figure as PNG or SVG, by the suffix of `path`, whose folder is made where it is missing.

    The same figure gives the same bytes. M2dxError for another suffix, or where the disk refuses it.
    """
    check_picture_path(path)
    import matplotlib

    kind = path.suffix[1:]
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    try:
        with matplotlib.rc_context({"svg.hashsalt": "m2dx", "svg.fonttype": "none"}):
            replace_file(
                path,
                lambda file: figure.savefig(
                    file, format=kind, dpi=dots_per_inch, metadata=metadata, facecolor="white"
                ),
            )
    except OSError as error:
        raise M2dxError(f"{path} could not be written: {error.strerror or error}") from error
    return path
