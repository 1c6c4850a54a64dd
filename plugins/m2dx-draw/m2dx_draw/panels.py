"""Figures of pictures in rows, each under its title, and their PNG or SVG files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m2dx.report.style import INK, LABEL_SIZE, Picture, Span, draw_logmel

TITLE_SIZE = 9
LONGEST_TITLE = 43  # characters


def logmel_picture(title: str, logmel: NDArray[np.floating], span: Span) -> Picture:
    """The log-mel (M, L) of a sound under its name."""
    label = f"Log-mel of {title}, {span.seconds:.3g} s."
    return Picture(title, partial(draw_logmel, logmel=logmel, span=span), label)


def panel_figure(rows: Sequence[Sequence[Picture | None]], *, inches: tuple[float, float]) -> Figure:
    """A figure of pictures in rows, each of a size, under their titles; None leaves a place free.

    Spectrograms have the names of their axes at the left and bottom edge only: in between they would push the panels
    apart.
    """
    columns = max(map(len, rows))
    figure = Figure(figsize=(inches[0] * columns, inches[1] * len(rows)), layout="constrained")
    grid = figure.add_gridspec(len(rows), columns)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            if picture is None:
                continue
            axes = figure.add_subplot(grid[row, column])
            picture.draw(axes)
            set_title(axes, picture.title)
            if axes.images:
                left, bottom = column == 0, row == len(rows) - 1
                axes.tick_params(labelleft=left, labelbottom=bottom, left=left, bottom=bottom)
                axes.set_ylabel("Hz" if left else "", fontsize=LABEL_SIZE, color=INK)
                axes.set_xlabel("seconds" if bottom else "", fontsize=LABEL_SIZE, color=INK)
    return figure


def set_title(axes: Axes, title: str) -> None:
    """A panel's title, at its left; file names are taken as they are, long ones without their middle."""
    if len(title) > LONGEST_TITLE:
        half = (LONGEST_TITLE - 1) // 2
        title = f"{title[:half]}…{title[-half:]}"
    axes.set_title(title, loc="left", fontsize=TITLE_SIZE, color=INK, parse_math=False)


def numbered(names: Sequence[str], form: str) -> list[str]:
    """The names, with their number in `form` behind those that come several times."""
    return [
        name + form.format(names[: i + 1].count(name)) if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
