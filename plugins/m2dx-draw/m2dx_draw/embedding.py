"""Clips of a labelled set in two dimensions, by their features (t-SNE or principal components)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from m2dx.contract.components import Clip, ClipEncoder, Dataset
from m2dx.contract.errors import AudioError, RecipeError
from m2dx.data.clips import call_dataset, list_clips
from m2dx.data.containers import is_there
from m2dx.data.reading import probe
from m2dx.evaluation.features import Standardiser
from m2dx.evaluation.tasks import ClipTask, mean_seconds, partition
from m2dx.report.style import INK, LABEL_SIZE, Picture
from m2dx_draw.panels import panel_figure

logger = logging.getLogger(__name__)

Method = Literal["tsne", "pca"]
Looks = dict[str, tuple[str | tuple[float, float, float], str]]
"""Colour and marker of each class."""
SEVERAL = "several labels"
PERPLEXITY = 30.0
PANEL_INCHES = 4.2
MARKERS = "os^DvP*X<>hp"
LEGEND_ROWS = 24
GREY = "#9aa1a8"


@dataclass(frozen=True, eq=False)
class Embedding:
    """Clips of a labelled set in two dimensions."""

    title: str
    points: NDArray[np.float64]  # (n, 2)
    labels: tuple[str, ...]  # n, the class of each clip
    axes: tuple[str, str]  # what the two dimensions are
    is_training: tuple[bool, ...] = ()  # n, the clips of the splits train and valid; empty: not known


def labelled_clips(
    name: str,
    dataset: Dataset,
    *,
    unit_seconds: float | None = None,
    short_clips: Literal["pad", "repeat"] = "pad",
    split: str | None = None,
    most: int | None = None,
    seed: int = 0,
) -> ClipTask:
    """The labelled clips of a data set, without divisions: `most` of them at most, drawn by the seed.

    `unit_seconds` defaults to that of a published task, else to `mean_seconds` of the clips. RecipeError where there
    are no clips, or fewer than 3 with a label that can be read; what is left out is said in a warning.
    """
    listed = list_clips(name, dataset, split)
    if not listed:
        of_split = "" if split is None else f" in the split {split!r}"
        raise RecipeError(
            f"{name} has no clips{of_split}. {' '.join(call_dataset(name, dataset, 'missing'))}".rstrip()
        )
    labelled = [clip for clip in listed if clip.labels]
    if len(labelled) < len(listed):
        logger.warning("%s: %d of %d clips have no label", name, len(listed) - len(labelled), len(listed))
    if most is not None and len(labelled) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(labelled), most, replace=False))
        logger.warning("%s: %d of %d clips are drawn", name, most, len(labelled))
        labelled = [labelled[i] for i in chosen]
    clips, bad = partition(labelled, _readable)
    if bad:
        logger.warning("%s: %d clips cannot be read, e.g. %s: %s", name, len(bad), bad[0].path, bad[0].reason)
    if len(clips) < 3:
        raise RecipeError(f"{name} must have at least 3 labelled clips to draw, but has {len(clips)}")
    published = None if dataset.task is None else dataset.task.unit_seconds
    seconds = unit_seconds or published or mean_seconds(name, clips)
    names = tuple(dict.fromkeys(label for clip in clips for label in clip.labels))
    return ClipTask(name, tuple(clips), names, (), seconds, short_clips)


def _readable(clip: Clip) -> Clip:
    """The clip with its duration; AudioError where there is no such file, or its header is damaged."""
    if not is_there(clip.path):
        raise AudioError("missing: no such file")
    return replace(clip, duration=clip.duration or probe(clip.path).seconds - clip.start)


def embed(
    encoder: ClipEncoder, task: ClipTask, *, title: str, method: Method = "tsne", seed: int = 0
) -> Embedding:
    """The clips of a task by an encoder, in two dimensions. Features are standardised first; the same each time."""
    features = task.features(encoder).x
    points, axes = project(Standardiser.fit(features)(features), method=method, seed=seed)
    labels = tuple(clip.labels[0] if len(clip.labels) == 1 else SEVERAL for clip in task.clips)
    is_training = tuple(clip.split in ("train", "valid") for clip in task.clips)
    return Embedding(title, points, labels, axes, is_training if any(is_training) else ())


def project(
    features: torch.Tensor, *, method: Method, seed: int
) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Features (n, D) in two dimensions, (n, 2), and what these are called. n must be 3 or more."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = features.numpy()
    if method == "pca":
        pca = PCA(2, svd_solver="full", random_state=seed)
        points = pca.fit_transform(x)
        shares = pca.explained_variance_ratio_
        return points, (f"component 1 ({shares[0]:.0%})", f"component 2 ({shares[1]:.0%})")
    perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    return tsne.fit_transform(x).astype(np.float64), ("t-SNE 1", "t-SNE 2")


def embedding_figure(embeddings: Sequence[Embedding]) -> Figure:
    """A panel for each embedding of one labelled set, coloured by class, with one legend for all.

    Clips of the splits train and valid are hollow. Beyond ten classes colours come again with another marker. Raises
    ValueError without embeddings.
    """
    if not embeddings:
        raise ValueError("a figure needs at least one embedding")
    classes = sorted({label for item in embeddings for label in item.labels} - {SEVERAL})
    looks = class_looks(classes)
    legend_columns = -(-len(looks) // LEGEND_ROWS)
    panels = [Picture(item.title, partial(_draw, item=item, looks=looks)) for item in embeddings]
    width = PANEL_INCHES + 1.4 * legend_columns / len(panels)
    figure = panel_figure([panels], inches=(width, PANEL_INCHES))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if any(any(item.is_training) for item in embeddings):
        dot = partial(Line2D, [], [], linestyle="", marker="o", color=INK, markersize=4)
        handles += [dot(), dot(fillstyle="none")]
        labels += ["filled: test", "hollow: training"]
    figure.legend(
        handles, labels, loc="outside right upper", ncols=legend_columns, fontsize=LABEL_SIZE, labelcolor=INK,
        frameon=False, markerscale=1.6, handletextpad=0.2,
    )  # fmt: skip
    return figure


def class_looks(classes: Sequence[str]) -> Looks:
    """Colour and marker of each class; clips of several labels are grey."""
    looks: Looks = {
        name: (to_rgb(f"C{i % 10}"), MARKERS[i // 10 % len(MARKERS)]) for i, name in enumerate(classes)
    }
    return {**looks, SEVERAL: (GREY, ".")}


def _draw(axes: Axes, *, item: Embedding, looks: Looks) -> None:
    labels = np.array(item.labels)
    hollow = np.array(item.is_training or [False] * len(labels))
    size = float(np.clip(3000.0 / len(labels), 5.0, 28.0))
    for name, (colour, marker) in looks.items():
        chosen = labels == name
        if name == SEVERAL and not chosen.any():
            continue
        scatter = partial(axes.scatter, s=size, marker=marker, alpha=0.8)
        # Matplotlib takes text between $ for a formula, and hides names that start with an underscore.
        shown = name.replace("$", r"\$")
        shown = f"\u200b{shown}" if shown.startswith("_") else shown
        scatter(*item.points[chosen & ~hollow].T, color=colour, linewidths=0, label=shown)
        if (chosen & hollow).any():
            scatter(*item.points[chosen & hollow].T, facecolors="none", edgecolors=colour, linewidths=0.8)
    axes.set_xlabel(item.axes[0], fontsize=LABEL_SIZE, color=INK)
    axes.set_ylabel(item.axes[1], fontsize=LABEL_SIZE, color=INK)
    axes.set(xticks=[], yticks=[])  # only distances mean something
    axes.spines[:].set(color=INK, alpha=0.25)
