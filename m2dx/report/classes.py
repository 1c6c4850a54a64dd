"""Class by class: which classes an encoder's classifier tells apart, what it takes them for, and clips to listen to."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import soundfile
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from numpy.typing import NDArray

from m2dx.contract.components import Clip, Prediction, Score
from m2dx.contract.errors import AudioError
from m2dx.data.reading import read_wav
from m2dx.report.style import ACCENT, INK, Picture
from m2dx.results.predictions import Predictions
from m2dx.results.scores import PRETRAINED
from m2dx.results.verdict import compare

logger = logging.getLogger(__name__)

MOST_CLASSES = 20  # classes of a task that are listed, at most
MOST_IN_MATRIX, MOST_NAMED, MOST_COUNTED = 60, 16, 12
"""Classes of a confusion matrix, with names, and with numbers, at most."""
CLIPS_OF_TASK, CLIPS_OF_PAGE = 8, 48  # clips to listen to, at most
SECONDS, SAMPLE_RATE = 2.0, 16_000  # of each clip; as MP3 about 9 kB
TEXT_SIZE = 7
PEAK = 0.7  # of full scale, so that quiet clips can be heard
_NAMES = {"macro_f1": "macro-F1", "auroc": "AUROC", "ece": "ECE"}


@dataclass(frozen=True)
class TaskByClass:
    """A task by the protocol that the encoder is best with, among those whose scores tell classes."""

    own: Score
    rival: Score | None  # of the best baseline; None: it tells no classes
    metrics: Sequence[tuple[str, str]]  # name, and value with its interval
    rows: Sequence[tuple[str, Any, Any]]  # class, and `per_class` of encoder and rival; the worst first
    confusion: Picture | None
    clips: Sequence[Prediction]  # the mistakes to listen to


def tasks_by_class(scores: Sequence[Score], predictions: Predictions) -> list[TaskByClass]:
    """Each task that the run's encoder has scores with classes of."""
    best: dict[str, Score] = {}
    for score in scores:
        if score.encoder == PRETRAINED and _tells_classes(score):
            best[score.task] = max(best.get(score.task, score), score, key=lambda score: score.mean)
    rivals = {(pair.own.task, pair.own.protocol): pair.rival for pair in compare(scores)}
    most = min(CLIPS_OF_TASK, CLIPS_OF_PAGE // max(len(best), 1))
    found = []
    for task, own in best.items():
        rival = rivals.get((task, own.protocol))
        rival = rival if rival is not None and _tells_classes(rival) else None
        said = predictions.get((PRETRAINED, task, own.protocol), ())
        single = said if all(len(item.clip.labels) == 1 for item in said) else []
        clips = most_certain([item for item in said if item.label not in item.clip.labels], most)
        rows, confusion = class_rows(own, rival), confusion_picture(task, single)
        found.append(TaskByClass(own, rival, _metrics(own), rows, confusion, clips))
    return found


def _tells_classes(score: Score) -> bool:
    """Whether a score has what `with_metrics` adds; an evaluator's own `per_class` may be of any form."""
    return {"metrics_of", "metrics", "per_class"} <= score.details.keys()


def _metrics(score: Score) -> list[tuple[str, str]]:
    entries: Any = score.details["metrics"]
    form = "{value:.1%} ({low:.1%} to {high:.1%})"
    known = {name: entry for name, entry in entries.items() if None not in entry.values()}
    return [(_NAMES.get(name, name.replace("_", " ")), form.format(**entry)) for name, entry in known.items()]


def class_rows(own: Score, rival: Score | None) -> list[tuple[str, Any, Any]]:
    """A row for each class with test clips, those with the fewest right first."""
    mine: Any = own.details["per_class"]
    theirs: Any = {} if rival is None else rival.details["per_class"]
    rows = [(name, entry, theirs.get(name)) for name, entry in mine.items() if entry["clips"]]
    return sorted(rows, key=lambda row: (row[1]["recall"]["value"], row[0]))


def confusion_picture(task: str, predictions: Sequence[Prediction]) -> Picture | None:
    """Shares of each class (a row each) by what they are taken for; None: too many classes, or none."""
    names = sorted({name for item in predictions for name in (*item.clip.labels, item.label)})
    if not 0 < len(names) <= MOST_IN_MATRIX:
        return None
    number = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for item in predictions:
        counts[number[item.clip.labels[0]], number[item.label]] += 1
    right = f"{counts.diagonal().sum():,} of {counts.sum():,} test clips are right"
    label = f"Confusion of the {len(names)} classes of {task}: {right}."
    return Picture(task, partial(_draw_confusion, counts=counts, names=names), label)


def _draw_confusion(axes: Axes, *, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    shades = np.full((*counts.shape, 4), to_rgba(ACCENT))
    shades[..., 3] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shades, interpolation="none", aspect="auto")
    if len(names) <= MOST_NAMED:
        shown = [name if len(name) <= 12 else f"{name[:11]}…" for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), shown, parse_math=False)
        for row, column in np.argwhere(counts if len(names) <= MOST_COUNTED else 0 * counts):
            number = str(counts[row, column])
            axes.text(column, row, number, ha="center", va="center_baseline", fontsize=TEXT_SIZE, color=INK)
    else:
        axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0, labelsize=TEXT_SIZE, colors=INK)
    axes.spines[:].set(color=INK, alpha=0.25)


def most_certain(wrong: Sequence[Prediction], most: int) -> list[Prediction]:
    """The mistakes with the highest probabilities, first one of each pair of truth and prediction, then others."""
    pairs: dict[object, list[Prediction]] = {}
    for item in sorted(wrong, key=lambda item: -item.probability):
        pairs.setdefault((item.clip.labels, item.label), []).append(item)
    return list(filter(None, chain(*zip_longest(*pairs.values()))))[:most]


def sound(clip: Clip) -> str:
    """A URL that holds the beginning of a clip as MP3; empty where it cannot be read, which is logged."""
    duration = SECONDS if clip.duration is None else min(clip.duration, SECONDS)
    file = io.BytesIO()
    try:
        wav = read_wav(clip.path, start=clip.start, duration=duration, sample_rate=SAMPLE_RATE)
        wav = wav * (PEAK / max(float(np.abs(wav).max()), 1e-5))
        soundfile.write(file, wav, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III")
    except (AudioError, OSError, ValueError, soundfile.SoundFileError) as error:
        logger.warning("%s cannot be heard on the page: %s", clip.path, error)
        return ""
    return f"data:audio/mpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
