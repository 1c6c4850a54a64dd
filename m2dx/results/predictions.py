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
from m2dx.results.scores import parse_lines

PREDICTIONS_FILE = "predictions.jsonl"
"""Name of the file in the folder of a run: a line per encoder, task, protocol and test clip."""
MOST_CLIPS = 5_000  # clips of one score that are written, at most; of more, these are evenly spread over them
DIGITS = 4  # of probabilities

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
    adapter, found = TypeAdapter(Prediction), defaultdict[tuple[str, str, str], list[Prediction]](list)

    def parse(entry: str) -> None:
        line = json.loads(entry)
        item = adapter.validate_python(line)
        found[str(line["encoder"]), str(line["task"]), str(line["protocol"])].append(item)

    _, unreadable = parse_lines(folder / PREDICTIONS_FILE, parse)
    return dict(found), unreadable
