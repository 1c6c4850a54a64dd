"""Figures of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m2dx.pictures.embedding import SEVERAL, Embedding
from m2dx.pictures.style import INK, LABEL_SIZE, set_title

PANEL_INCHES = 4.2
MARKERS = "os^DvP*X<>hp"
LEGEND_ROWS = 24
GREY = "#9aa1a8"


def embedding_figure(embeddings: Sequence[Embedding]) -> Figure:
    """A panel for each embedding of one labelled set, coloured by class, with one legend for all.

    Beyond ten classes colours come again with another marker. Raises ValueError without embeddings.
    """
    if not embeddings:
        raise ValueError("a figure needs at least one embedding")
    classes = sorted({label for item in embeddings for label in item.labels} - {SEVERAL})
    looks = class_looks(classes)
    legend_columns = -(-len(looks) // LEGEND_ROWS)
    figure = Figure(
        figsize=(PANEL_INCHES * len(embeddings) + 1.4 * legend_columns, PANEL_INCHES), layout="constrained"
    )
    for number, item in enumerate(embeddings, start=1):
        _draw(figure.add_subplot(1, len(embeddings), number), item, looks)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside right upper",
        ncols=legend_columns,
        fontsize=LABEL_SIZE,
        labelcolor=INK,
        frameon=False,
        markerscale=1.6,
        handletextpad=0.2,
    )
    return figure


def class_looks(classes: Sequence[str]) -> dict[str, tuple[object, str]]:
    """Colour and marker of each class; clips of several labels are grey."""
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    looks: dict[str, tuple[object, str]] = {
        name: (colours[i % len(colours)], MARKERS[i // len(colours) % len(MARKERS)])
        for i, name in enumerate(classes)
    }
    return {**looks, SEVERAL: (GREY, ".")}


def _draw(axes: Axes, item: Embedding, looks: dict[str, tuple[object, str]]) -> None:
    labels = np.array(item.labels)
    size = float(np.clip(3000.0 / len(labels), 5.0, 28.0))
    for name, (colour, marker) in looks.items():
        chosen = labels == name
        if name == SEVERAL and not chosen.any():
            continue
        x, y = item.points[chosen].T
        axes.scatter(
            x, y, s=size, color=[colour], marker=marker, alpha=0.8, linewidths=0, label=_legend_text(name)
        )  # fmt: skip
    set_title(axes, item.title)
    axes.set_xlabel(item.axes[0], fontsize=LABEL_SIZE, color=INK)
    axes.set_ylabel(item.axes[1], fontsize=LABEL_SIZE, color=INK)
    axes.set(xticks=[], yticks=[])  # only distances mean something
    axes.spines[:].set(color=INK, alpha=0.25)


def _legend_text(name: str) -> str:
    """A class's name that matplotlib takes as it is: not as a formula, and not hidden for its underscore."""
    text = name.replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text
