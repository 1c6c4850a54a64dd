"""The file of predictions in a run's folder: what each classifier said of each test clip, beside the scores."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from m2dx.contract.atomic import replace_text
from m2dx.contract.components import Prediction, Score

PREDICTIONS_FILE = "predictions.jsonl"
"""Name of the file in the folder of a run: a line per encoder, task, protocol and test clip."""
MOST_CLIPS = 5_000
"""Clips of one score that are written, at most; of more, these are evenly spread over them."""
DRAWS = 1_000

Predictions = Mapping[tuple[str, str, str], Sequence[Prediction]]
"""By encoder, task and protocol."""


def write_predictions(scores: Sequence[Score], folder: Path) -> None:
    """Writes each prediction of the scores with its encoder, task and protocol, in place of those of the folder."""
    lines = {}
    for score in scores:
        key = {"encoder": score.encoder, "task": score.task, "protocol": score.protocol}
        found, count = score.predictions, min(len(score.predictions), MOST_CLIPS)
        chosen = [asdict(found[i * len(found) // count]) for i in range(count)]
        if chosen:  # the same of all metrics of a protocol
            lines[tuple(key.values())] = [json.dumps({**key, **item}, default=str) + "\n" for item in chosen]
    replace_text(folder / PREDICTIONS_FILE, "".join(chain(*lines.values())))


def read_predictions(folder: Path) -> tuple[Predictions, int]:
    """The predictions of a run's folder, none where it has no such file, and the number of lines that are none."""
    path, adapter = folder / PREDICTIONS_FILE, TypeAdapter(Prediction)
    found: dict[tuple[str, str, str], list[Prediction]] = defaultdict(list)
    unreadable = 0
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for entry in text.splitlines():
        try:
            line = json.loads(entry)
            key = (str(line["encoder"]), str(line["task"]), str(line["protocol"]))
            found[key].append(adapter.validate_python(line))
        except (ValueError, TypeError, KeyError, RecursionError):
            unreadable += 1
    return {key: items for key, items in found.items() if items}, unreadable


def with_intervals(scores: Sequence[Score], predictions: Predictions) -> list[Score]:
    """The scores; accuracies of a single value get the interval that their predictions give, if there are any."""
    return [
        replace(score, ci95=_half_width(found))
        if (found := predictions.get((score.encoder, score.task, score.protocol)))
        and score.ci95 is None
        and score.metric == "accuracy"
        else score
        for score in scores
    ]


def _half_width(predictions: Sequence[Prediction]) -> float:
    """Half of the 95 % interval of the accuracy by the bootstrap: the wider one of those over clips and over groups.

    Clips whose group is not known are a group by file.
    """
    right = np.array([item.label in item.clip.labels for item in predictions])
    numbers: dict[tuple[str | None, Path | None], int] = {}
    groups = np.array(
        [
            numbers.setdefault((clip.group, clip.path if clip.group is None else None), len(numbers))
            for clip in (item.clip for item in predictions)
        ]
    )
    widths = []
    for parts in (np.arange(len(right)), groups):
        hits, clips = np.bincount(parts, weights=right), np.bincount(parts)
        drawn = np.random.default_rng(0).integers(len(clips), size=(DRAWS, len(clips)))
        low, high = np.percentile(hits[drawn].sum(1) / clips[drawn].sum(1), [2.5, 97.5])
        widths.append(float(high - low) / 2)
    return max(widths)
