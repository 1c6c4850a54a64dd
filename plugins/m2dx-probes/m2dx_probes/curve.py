"""Scores by the number of labels: every task of a recipe with ever more of its training part."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

import m2dx
from m2dx.contract.components import ClipEncoder
from m2dx.contract.progress import ProgressLine
from m2dx.encoder.audio import load_any_encoder
from m2dx.evaluation.metrics import half_width_95
from m2dx.evaluation.runner import evaluate
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.schema import Recipe
from m2dx.report.style import INK, LABEL_SIZE
from m2dx.results import Group, ResultTable, Row
from m2dx.results.scoring import Scoring, encoders_to_compare
from m2dx.results.table import cells_of
from m2dx_probes.subsets import subset_fold

SIZES = tuple(25 * 2**step for step in range(10))
"""Labels of the default curve, as far as the training part has them."""
DRAWS = 5
PANEL_INCHES = (3.6, 2.6)
NOTE = (
    "In percent; ± is half of the 95 % confidence interval over the draws of labels (Student's t). The last size of a "
    "task is its whole training part, which has no draws."
)


@dataclass(frozen=True)
class Point:
    """A score with so many labels."""

    task: str
    protocol: str
    metric: str
    encoder: str
    labels: int  # of training and validation part together; of folds, of the smallest
    values: tuple[float, ...]  # by draw

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def ci95(self) -> float | None:
        """Half width of the interval over the draws; None: one value."""
        return half_width_95(self.values)

    @property
    def panel(self) -> tuple[str, str, str]:
        """What was measured."""
        return self.task, self.protocol, self.metric


def learning_curve(
    encoder: Path,
    recipe: Recipe,
    host: m2dx.PluginHost,
    *,
    sizes: Sequence[int] = SIZES,
    draws: int = DRAWS,
    console: Console,
) -> list[Point]:
    """Scores of an encoder and the recipe's baselines with the first `sizes` labels of each task, and with all.

    Each draw has its own order of groups (`labelling_order`), the same for all encoders, and is the seed of evaluators
    and random weights. Test parts stay as they are.
    """
    network = load_any_encoder(encoder)
    scoring = Scoring.of(recipe, host, network)
    tasks = scoring.tasks(console)
    makers = {name: cache(make) for name, make in encoders_to_compare(recipe, network, host).items()}
    steps = [
        (task, size, draw)
        for task in tasks
        for size in _sizes_of(task, sizes)
        for draw in range(draws if size < _labels(task) else 1)
    ]
    with ProgressLine(console, "learning curve") as line:
        values: dict[tuple[tuple[str, str, str], str, int], list[float]] = defaultdict(list)
        for done, (task, size, draw) in enumerate(steps):
            line.update(done, len(steps), f"{task.name}: {size} labels")
            for score in _scores(scoring, makers, task, size, draw):
                values[(score.task, score.protocol, score.metric), score.encoder, size].append(score.mean)
    return [Point(*panel, name, size, tuple(found)) for (panel, name, size), found in values.items()]


def _scores(
    scoring: Scoring, makers: Mapping[str, Callable[[int], ClipEncoder]], task: ClipTask, size: int, draw: int
) -> list[m2dx.Score]:
    folds = task.folds
    if size < _labels(task):
        # Values have no shares that the draws could keep.
        targets = task.targets() if task.label_names else np.ones((len(task.clips), 1), dtype=np.float32)
        folds = tuple(subset_fold(fold, size, task.clips, targets, draw) for fold in folds)
    names = scoring.protocols()[task.name]
    evaluators = {name: scoring.evaluators[name] for name in names}
    return evaluate(
        makers, [replace(task, folds=folds)], evaluators, seeds=(draw,)
    )  # features stay with the task


def _labels(task: ClipTask) -> int:
    """Labels of the smallest training and validation part of its folds."""
    return min(len(fold.fitted) for fold in task.folds)


def _sizes_of(task: ClipTask, sizes: Sequence[int]) -> list[int]:
    return [*sorted({size for size in sizes if size < _labels(task)}), _labels(task)]


def curve_table(points: Sequence[Point]) -> ResultTable:
    """A group for each task, protocol and metric, in it a row for each number of labels, a column for each encoder."""
    encoders = tuple(dict.fromkeys(point.encoder for point in points))
    groups = []
    for panel in dict.fromkeys(point.panel for point in points):
        found = {(point.labels, point.encoder): point for point in points if point.panel == panel}
        rows = []
        for labels in sorted({labels for labels, _ in found}):
            cells = cells_of([found.get((labels, encoder)) for encoder in encoders])
            rows.append(Row(f"{labels:,}", (), cells))
        groups.append(Group("{}, {} ({})".format(*panel), tuple(rows)))
    return ResultTable("", "labels", (), encoders, tuple(groups), notes=(NOTE,))


def curve_figure(points: Sequence[Point]) -> Figure:
    """A panel for each task, protocol and metric: percent against the number of labels, with 95 % intervals."""
    panels, encoders = (
        list(dict.fromkeys(names)) for names in zip(*[(p.panel, p.encoder) for p in points], strict=True)
    )
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, panel in zip(grid.flat, panels, strict=False):
        for colour, encoder in enumerate(encoders):
            line = sorted(
                (p for p in points if (p.panel, p.encoder) == (panel, encoder)), key=lambda p: p.labels
            )
            axes.errorbar(
                [point.labels for point in line],
                [100 * point.mean for point in line],
                yerr=[100 * (point.ci95 or 0.0) for point in line],
                color=f"C{colour}", label=encoder, linewidth=1.3, marker="o", markersize=3, elinewidth=0.8, capsize=2,
            )  # fmt: skip
        labels = sorted({point.labels for point in points if point.panel == panel})
        axes.set_xscale("log")
        axes.set_xticks(labels, [f"{number:,}" for number in labels])
        axes.minorticks_off()
        axes.set_xlabel("labels", fontsize=LABEL_SIZE, color=INK)
        axes.set_title("{}, {}: {} (%)".format(*panel), loc="left", fontsize=LABEL_SIZE + 1, color=INK)
        axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=INK, alpha=0.13, linewidth=0.6)
    grid.flat[0].legend(frameon=False, fontsize=LABEL_SIZE)
    return figure


def parse_sizes(text: str) -> list[int]:
    """Numbers of labels from text such as "25,50,100". Raises M2dxError for anything else."""
    try:
        sizes = [int(number) for number in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 2:
        raise m2dx.M2dxError(
            f"--sizes must be numbers of labels, 2 or more, such as 25,50,100, but is {text!r}"
        )
    return sorted(set(sizes))
