"""Pictures as SVG elements of the page that take its text colour."""

from __future__ import annotations

import io
import logging
import re
import warnings
from html import escape
from pathlib import Path
from typing import BinaryIO

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from m2dx.contract.atomic import replace_file
from m2dx.contract.errors import M2dxError
from m2dx.contract.wording import some_of
from m2dx.report.style import INK, Picture

logger = logging.getLogger(__name__)

SHAPES: dict[str, tuple[tuple[float, float], tuple[float, float, float, float] | None]] = {
    "panel": ((2.5, 1.5), (0.15, 0.25, 0.84, 0.7)),
    "matrix": ((2.5, 2.55), (0.29, 0.3, 0.705, 0.695)),
    "strip": ((1.8, 1.2), None),
}
"""Sizes of pictures on the page in inches, and where their axes are, so that neighbours are in line: left, bottom,
width and height in shares; None: everywhere, without frame and numbers. A panel fills a phone's screen, where its
text is as large as the page's.
"""
_SEEN: dict[str | tuple[str, type[Warning], int], int] = {}  # matplotlib's other warnings, each told once
GLYPH = r"Glyph (\d+) .*missing from"  # how matplotlib warns of a character that its fonts lack
MOST_COLUMNS = 320  # frames of a spectrogram on the page, at most; of longer ones neighbours are averaged


def svg(picture: Picture, shape: str) -> Markup:
    """A picture as an SVG element that scales to its place, without its title and ids that another could have.

    `shape`: one of `SHAPES`.
    """
    inches, frame = SHAPES[shape]
    figure = Figure(figsize=inches)
    axes = figure.add_axes(frame or (0.0, 0.0, 1.0, 1.0))
    picture.draw(axes)
    if frame is None:
        axes.set_axis_off()
    _thin_images(figure)
    figure.patch.set_alpha(0.0)
    axes.patch.set_alpha(0.0)
    file = io.BytesIO()
    _write(figure, file, "svg")
    text = file.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' (width|height)="[^"]*pt"', "", text, count=2)
    label = f'<svg role="img" aria-label="{escape(picture.label)}"'
    return Markup(text.replace("<svg", label, 1).replace(INK, "currentColor"))


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG or SVG, by the suffix of `path`, whose folder is made where it is missing.

    The same figure gives the same bytes. M2dxError where the disk refuses it, ValueError for a suffix that matplotlib
    does not know.
    """
    kind = path.suffix[1:]
    lacking = ""

    def write(file: BinaryIO) -> None:
        nonlocal lacking
        lacking = _write(figure, file, kind)

    try:
        replace_file(path, write)
    except OSError as error:
        raise M2dxError(f"{path} could not be written: {error.strerror or error}") from error
    if lacking and kind != "svg":
        logger.warning(
            "%s: boxes stand for characters that no font of matplotlib has (%s); write .svg, whose text the browser "
            "draws, or set `font.family` in a matplotlibrc", path, some_of(lacking)
        )  # fmt: skip
    return path


def _write(figure: Figure, file: BinaryIO, kind: str) -> str:
    """Gives the characters that the fonts lack, which are of no account in an SVG: there, text stays text."""
    metadata = {"svg": {"Date": None}, "png": {"Software": None}}.get(kind)
    with warnings.catch_warnings(record=True) as found:
        warnings.filterwarnings("always", GLYPH, UserWarning)
        with matplotlib.rc_context({"svg.hashsalt": "m2dx", "svg.fonttype": "none"}):  # ids: by content alone
            figure.savefig(file, format=kind, dpi=150, metadata=metadata)
    lacking: dict[str, None] = {}
    for warning in found:
        if glyph := re.match(GLYPH, str(warning.message)):
            lacking[chr(int(glyph[1]))] = None
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno, registry=_SEEN
            )
    return "".join(lacking)


def _thin_images(figure: Figure) -> None:
    for image in (image for axes in figure.axes for image in axes.images):
        values = np.asarray(image.get_array())
        group = -(-values.shape[1] // MOST_COLUMNS)
        if group > 1 and values.shape[2:] != (4,):  # masks of patches stay as they are
            rest = values.shape[2:]  # nothing, or three colours
            edge = np.pad(values, ((0, 0), (0, -values.shape[1] % group), *[(0, 0)] * len(rest)), mode="edge")
            image.set_data(edge.reshape(len(values), -1, group, *rest).mean(axis=2))
