"""Figures of reconstructions: input, reconstruction and error (MSM-MAE, figures 2 to 4 and 7 to 9)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from m2dx.pictures.masks import PatchMask
from m2dx.pictures.reconstruction import Reconstruction, Reconstructor
from m2dx.pictures.sounds import Sound
from m2dx.pictures.style import (
    INK,
    LABEL_SIZE,
    draw_grid_image,
    label_axes,
    limits_of,
    outline_patches,
    set_title,
)

PANEL_INCHES = (3.0, 1.35)
MOST_IN_A_ROW = 3
"""Reconstructions beside each other, at most; more go on in the next row."""


def reconstruction_figure(
    model: Reconstructor,
    sounds: Sequence[Sound],
    masks: Sequence[PatchMask],
    *,
    outline: bool = True,
) -> Figure:
    """Input, reconstruction and error of each sound under each mask; titles say mask and MSE.

    Masks of the same pattern and ratio are numbered as attempts. `outline`: visible patches are outlined in white.
    """
    return draw_reconstructions(reconstructions(model, sounds, masks), outline=outline)


def reconstructions(
    model: Reconstructor, sounds: Sequence[Sound], masks: Sequence[PatchMask]
) -> list[list[Reconstruction]]:
    """Each sound under each mask, with titles for a picture."""
    titles = mask_titles(masks, model.grid)
    return [
        [model.reconstruct(sound, mask, title=title) for mask, title in zip(masks, titles, strict=True)]
        for sound in sounds
    ]


def mask_titles(masks: Sequence[PatchMask], grid: tuple[int, int]) -> list[str]:
    """What each mask is called over a grid (F, T); those of one name are numbered as attempts."""
    names = [mask.title(grid) for mask in masks]
    return [
        f"{name}, attempt {names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def draw_reconstructions(blocks: Sequence[Sequence[Reconstruction]], *, outline: bool = True) -> Figure:
    """A figure of reconstructions, a block for each sound, whose reconstructions share their input.

    One reconstruction of a sound: input, reconstruction, error in a row. Several: the input, then each reconstruction
    with its error below. Errors have one scale throughout (darker: higher), log-mels one for each sound. Raises
    ValueError without reconstructions.
    """
    if not blocks or not all(blocks):
        raise ValueError("a figure needs at least one reconstruction of each sound")
    longest = max(len(block) for block in blocks)
    columns = 3 if longest == 1 else 1 + min(longest, MOST_IN_A_ROW)
    rows = len(blocks) if longest == 1 else sum(2 * -(-len(block) // MOST_IN_A_ROW) for block in blocks)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.6), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    most = _highest_error(blocks)
    row, drawn = 0, []
    for block in blocks:
        input_axes = figure.add_subplot(grid[row, 0])
        _draw_input(input_axes, block[0])
        drawn.append(input_axes)
        for number, item in enumerate(block):
            line = row + 2 * (number // MOST_IN_A_ROW)
            column = 1 + number % MOST_IN_A_ROW
            below = (line, 2) if longest == 1 else (line + 1, column)
            result_axes = figure.add_subplot(grid[line, column])
            _draw_result(result_axes, item, block[0], outline=outline)
            error_axes = figure.add_subplot(grid[below])
            errors = _draw_error(error_axes, item, most)
            drawn += [result_axes, error_axes]
        row += 1 if longest == 1 else 2 * -(-len(block) // MOST_IN_A_ROW)
    _label_edges(drawn)
    _key(figure, errors, drawn, rows=rows, own_scale=any(item.own_scale for item in chain(*blocks)))
    return figure


def _highest_error(blocks: Sequence[Sequence[Reconstruction]]) -> float:
    """Where the scale of errors ends: one value in 200 lies above it."""
    errors = [item.error.ravel() for item in chain(*blocks)]
    return max(float(np.percentile(np.concatenate(errors), 99.5)), 1e-6)


def _draw_input(axes: Axes, item: Reconstruction) -> None:
    draw_grid_image(
        axes, item.logmel, seconds=item.seconds, mels=len(item.logmel), limits=limits_of(item.logmel)
    )
    set_title(axes, item.name)


def _draw_result(axes: Axes, item: Reconstruction, first: Reconstruction, *, outline: bool) -> None:
    mels = len(item.logmel)
    draw_grid_image(axes, item.result, seconds=item.seconds, mels=mels, limits=limits_of(first.logmel))
    if outline:
        width = min(0.9, 40.0 / max(item.is_masked.shape))
        outline_patches(axes, ~item.is_masked, seconds=item.seconds, mels=mels, colour="white", width=width)
    set_title(axes, item.title)


def _draw_error(axes: Axes, item: Reconstruction, most: float) -> AxesImage:
    image = draw_grid_image(
        axes, item.error, seconds=item.seconds, mels=len(item.logmel), limits=(0.0, most), colours="Greys"
    )
    axes.spines[:].set(visible=True, color=INK, alpha=0.25, linewidth=0.6)  # white ends somewhere
    set_title(axes, error_title(item))
    return image


def error_title(item: Reconstruction) -> str:
    """The errors as a picture prints them: over the whole spectrogram, and over what had to be reconstructed."""
    return f"error: MSE {item.mse:.3f}, masked {item.masked_mse:.3f}"


def _label_edges(drawn: Sequence[Axes]) -> None:
    """Axis names in the first column and the last row; in between they would push the panels apart."""
    places = [axes.get_subplotspec() for axes in drawn]
    last = max(place.rowspan.start for place in places if place is not None)
    for axes, place in zip(drawn, places, strict=True):
        assert place is not None
        label_axes(axes, left=place.colspan.start == 0, bottom=place.rowspan.start == last)


def _key(figure: Figure, errors: AxesImage, drawn: Sequence[Axes], *, rows: int, own_scale: bool) -> None:
    """The scale of errors, and what a reader has to know of the reconstructions."""
    bar = figure.colorbar(
        errors,
        ax=list(drawn),
        location="right",
        shrink=0.9 if rows == 1 else 0.6,
        aspect=12 * rows,
        pad=0.01,
        extend="max",
    )
    bar.set_label("error (std of log-mels)", fontsize=LABEL_SIZE, color=INK)
    bar.ax.tick_params(labelsize=LABEL_SIZE, colors=INK)
    bar.outline.set_visible(False)
    if own_scale:
        figure.supxlabel(
            "The model leaves out each patch's mean and spread; those of the input were put back.",
            fontsize=LABEL_SIZE,
            color=INK,
        )
