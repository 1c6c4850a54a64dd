"""The file of predictions in a run's folder: what each classifier said of each test clip, beside the scores."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from pydantic import TypeAdapter

from m2dx.contract.atomic import replace_text
from m2dx.contract.components import Prediction, Score

PREDICTIONS_FILE = "predictions.jsonl"
"""Name of the file in the folder of a run: a line per encoder, task, protocol and test clip."""
MOST_CLIPS = 5_000
"""Clips of one score that are written, at most; of more, these are evenly spread over them."""
DIGITS = 4
"""Of probabilities."""

Predictions = Mapping[tuple[str, str, str], Sequence[Prediction]]
"""By encoder, task and protocol."""


def write_predictions(scores: Sequence[Score], folder: Path) -> None:
    """Writes each prediction of the scores with its encoder, task and protocol, in place of those of the folder."""
    lines = {}
    for score in scores:
        key = {"encoder": score.encoder, "task": score.task, "protocol": score.protocol}
        found, count = score.predictions, min(len(score.predictions), MOST_CLIPS)
        chosen = [_fields(found[i * len(found) // count]) for i in range(count)]
        if chosen:  # the same of all metrics of a protocol
            lines[tuple(key.values())] = [json.dumps({**key, **item}, default=str) + "\n" for item in chosen]
    replace_text(folder / PREDICTIONS_FILE, "".join(chain(*lines.values())))


def _fields(item: Prediction) -> dict[str, object]:
    fields = asdict(item)
    if item.probabilities is not None:
        fields["probabilities"] = [round(p, DIGITS) for p in item.probabilities]
    return fields | {"probability": round(item.probability, DIGITS)}


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
