"""Figures as PNG or SVG files, and as SVG elements of the page that take its text colour."""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path
from typing import BinaryIO

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from m2dx.contract.atomic import replace_file
from m2dx.contract.errors import M2dxError
from m2dx.report.style import INK, Picture, panel_figure

DOTS_PER_INCH = 150
PANEL_INCHES = (2.5, 1.68)
"""Of a picture with title and axes; on the screen of a phone, which it fills, its text is as large as the page's."""
STRIP_INCHES = (1.8, 1.2)
LONGEST_TITLE = 32  # characters that fit over a panel
MOST_COLUMNS = 320
"""Frames of a spectrogram on the page, at most; of longer ones neighbours are averaged."""


def save_figure(figure: Figure, path: Path, *, dots_per_inch: int = DOTS_PER_INCH) -> Path:
    """Writes a figure as PNG or SVG, by the suffix of `path`, whose folder is made where it is missing.

    The same figure gives the same bytes. M2dxError where the disk refuses it, ValueError for a suffix that matplotlib
    does not know.
    """
    try:
        replace_file(path, lambda file: _write(figure, file, path.suffix[1:], dots_per_inch))
    except OSError as error:
        raise M2dxError(f"{path} could not be written: {error.strerror or error}") from error
    return path


def _write(figure: Figure, file: BinaryIO, kind: str, dots_per_inch: int = DOTS_PER_INCH) -> None:
    metadata = {"svg": {"Date": None}, "png": {"Software": None}}.get(kind)
    # Ids in an SVG depend on its content alone, and text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "m2dx", "svg.fonttype": "none"}):
        figure.savefig(file, format=kind, dpi=dots_per_inch, metadata=metadata)


def panel_svg(picture: Picture) -> Markup:
    """A picture with its title and axes."""
    figure = panel_figure([[picture]], inches=PANEL_INCHES, longest=LONGEST_TITLE, weight="bold")
    figure.axes[0].patch.set_alpha(0.0)
    return _svg_element(figure, picture.label)


def strip_svg(picture: Picture) -> Markup:
    """A picture without title, axes and their numbers."""
    figure = Figure(figsize=STRIP_INCHES)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    picture.draw(axes)
    axes.set_axis_off()
    return _svg_element(figure, picture.label)


def _svg_element(figure: Figure, label: str) -> Markup:
    """A figure as an SVG element that scales to its place, without ids that another element could have."""
    _thin_images(figure)
    figure.patch.set_alpha(0.0)
    file = io.BytesIO()
    _write(figure, file, "svg")
    svg = file.getvalue().decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)
    return Markup(
        svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).replace(INK, "currentColor")
    )


def _thin_images(figure: Figure) -> None:
    for image in (image for axes in figure.axes for image in axes.images):
        values = np.asarray(image.get_array())
        group = -(-values.shape[1] // MOST_COLUMNS)
        if values.ndim == 2 and group > 1:
            edge = np.pad(values, ((0, 0), (0, -values.shape[1] % group)), mode="edge")
            image.set_data(edge.reshape(len(values), -1, group).mean(axis=2))
