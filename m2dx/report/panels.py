"""Panels of the page: drawn as every picture of m2dx, given as SVG elements that take the page's text colour."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m2dx.report.style import INK, set_title

Draw = Callable[[Axes], object]

PANEL_INCHES = (2.5, 1.68)
"""Of a panel with title and axes; on the screen of a phone, which it fills, its text is as large as the page's."""
STRIP_INCHES = (1.8, 1.2)
LONGEST_TITLE = 32  # characters that fit over a panel
MOST_COLUMNS = 320
"""Frames of a spectrogram on the page, at most; of longer ones neighbours are averaged."""


def panel_svg(draw: Draw, *, title: str, label: str) -> Markup:
    """What `draw` draws on axes, under a title; `label` is the text for those who can't see it."""
    figure = Figure(figsize=PANEL_INCHES, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    set_title(axes, title, longest=LONGEST_TITLE, weight="bold")
    axes.patch.set_alpha(0.0)
    return figure_svg(figure, label=label)


def strip_svg(draw: Draw, *, label: str) -> Markup:
    """What `draw` draws on axes, without the axes and their numbers."""
    figure = Figure(figsize=STRIP_INCHES)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    draw(axes)
    axes.set_axis_off()
    return figure_svg(figure, label=label)


def figure_svg(figure: Figure, *, label: str) -> Markup:
    """A figure as an inline SVG element that scales to its place and takes the page's text colour."""
    _thin_images(figure)
    figure.patch.set_alpha(0.0)
    target = io.StringIO()
    # Text stays text, and ids depend on content only: equal ids on a page are equal elements.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "m2dx"}):
        figure.savefig(target, format="svg", metadata={"Date": None})
    svg = target.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    opening = f'<svg role="img" aria-label="{escape(label)}"'
    return Markup(svg.replace("<svg", opening, 1).replace(INK, "currentColor"))


def _thin_images(figure: Figure) -> None:
    for image in (image for axes in figure.axes for image in axes.images):
        values = np.asarray(image.get_array())
        group = -(-values.shape[1] // MOST_COLUMNS)
        if values.ndim == 2 and group > 1:
            edge = np.pad(values, ((0, 0), (0, -values.shape[1] % group)), mode="edge")
            image.set_data(edge.reshape(len(values), -1, group).mean(axis=2))
