"""Scores of hear-eval-kit as records, so that `m2dx results` has them beside the tables of MSM-MAE.

`python -m heareval.predictions.runner EMBEDDINGS/*` writes test.predicted-scores.json into the folder of each task: a
JSON object with a section for each test part ("test", or "fold00", "fold01", ...), each of which has `test_<metric>`
for the task's metrics, beside `test_score` (the first metric again), `test_loss`, `validation_score`, `epoch` and
`time_in_min`. Of several folds there is a section `aggregated_scores` with the means and standard deviations.
`hparams`, `postprocessing`, `score_mode` and `embedding_path` say how they came about.

Source: `task_predictions` in heareval/predictions/task_predictions.py, and the README, of
https://github.com/hearbenchmark/hear-eval-kit (commit da4f19f).
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import m2dx
from m2dx.contract.package import find_encoder
from m2dx.evaluation.metrics import half_width_95
from m2dx.results import (
    RESULTS_FILE,
    Division,
    Protocol,
    ResultRecord,
    ScoredEncoder,
    append_records,
    package_versions,
)

SCORES_FILE = "test.predicted-scores.json"
METRICS = {"top1_acc": "accuracy", "pitch_acc": "accuracy", "mAP": "mAP", "aucroc": "aucroc"}
"""hear-eval-kit's name -> ours, of the metrics that are in [0, 1]; others keep their name."""
NO_SHARES = ("d_prime",)
"""Metrics that are left out: tables print all scores in percent, as error rates may be, and these are none."""
OTHERS = ("test_score", "test_loss")
"""Entries of a test part that start as metrics do."""
BATCH = "batch-statistics=true"
"""In the name of the folder that hear-eval-kit makes of `--model-options '{"batch_statistics": true}'`."""


@dataclass(frozen=True)
class TaskScores:
    """The scores of one task's file."""

    path: Path
    task: str
    part: str | None  # of a task that HEAR has in parts, as a task of its own for each fold: "fold0"
    folds: Mapping[str, Mapping[str, float]]  # by test part and metric; finite
    left_out: Mapping[str, str]  # metrics, and why
    about: Mapping[str, Any]

    @property
    def statistics(self) -> str:
        """Of what the embeddings were standardised with: "batch" or "encoder"."""
        return "batch" if BATCH in str(self.about.get("embedding_path", self.path.parent)) else "encoder"


def import_scores(folder: Path, encoder: str, output: Path) -> list[str]:
    """Appends the scores below a folder of embeddings to results.jsonl, and gives the lines to print.

    Raises M2dxError where a file is none of hear-eval-kit's, or there is none, and CheckpointError where the encoder
    cannot be read; then nothing is appended.
    """
    found = read_scores(folder)
    records = records_of(found, _scored_encoder(encoder))
    append_records(output / RESULTS_FILE, records)
    lines = [
        f"{item.path}: {metric} is left out, since it must be {why}"
        for item in found
        for metric, why in item.left_out.items()
    ]
    for record in records:
        interval = "" if record.ci95 is None else f" ± {record.ci95:.4f}"
        folds = f" ({len(record.values)} folds)" if len(record.values) > 1 else ""
        lines.append(f"{record.task} {record.metric}: {record.mean:.4f}{interval}{folds}")
    return [
        *lines,
        f"recorded in {output / RESULTS_FILE}; m2dx results {output} --table msm-mae-2 (-3 to -7) shows them",
    ]


def read_scores(folder: Path) -> list[TaskScores]:
    """The scores of a task's folder, or of each folder in it. M2dxError where there are none, or a file is another."""
    files = [
        path for path in (folder / SCORES_FILE, *sorted(folder.glob(f"*/{SCORES_FILE}"))) if path.is_file()
    ]
    if not files:
        raise m2dx.M2dxError(
            f"{folder} must be a folder of embeddings that hear-eval-kit has scored, but has no {SCORES_FILE}, nor "
            "has a folder in it; `python -m heareval.predictions.runner EMBEDDINGS/*` writes them"
        )
    return [_read(path) for path in files]


def _read(path: Path) -> TaskScores:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise m2dx.M2dxError(
            f"{path} must be JSON that hear-eval-kit wrote, but cannot be read: {error}"
        ) from error
    parts = content if isinstance(content, dict) else {}
    folds = {
        name: part
        for name, part in parts.items()
        if name != "aggregated_scores" and isinstance(part, dict) and "test_score" in part
    }
    if not folds:
        raise m2dx.M2dxError(
            f"{path} must have a section with a `test_score` for each test part, as hear-eval-kit writes, but has none"
        )
    scores = {
        name: {key.removeprefix("test_"): value for key, value in part.items() if _is_metric(key)}
        for name, part in folds.items()
    }
    names = list(dict.fromkeys(metric for part in scores.values() for metric in part))
    if not names:
        raise m2dx.M2dxError(f"{path} must have metrics (`test_<metric>`) beside `test_score`, but has none")
    left_out = {}
    for metric in names:
        for name, part in scores.items():
            value = part.get(metric)
            where = f"{path}: {name}.test_{metric}"
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise m2dx.M2dxError(f"{where} must be a number, but is {json.dumps(value)}")
            if metric in METRICS and math.isfinite(value) and not 0 <= value <= 1:
                raise m2dx.M2dxError(f"{where} must be in [0, 1], but is {value:g}")
        if metric in NO_SHARES:
            left_out[metric] = "a share, which tables print in percent, but is not"
        elif not all(math.isfinite(part[metric]) for part in scores.values()):
            left_out[metric] = "finite, but is not"
    task, part_name = task_of(path.absolute().parent.name)
    kept = {
        name: {metric: float(part[metric]) for metric in names if metric not in left_out}
        for name, part in scores.items()
    }
    about = {name: value for name, value in parts.items() if name not in folds}
    return TaskScores(path, task, part_name, kept, left_out, about)


def _is_metric(key: str) -> bool:
    return key.startswith("test_") and key not in OTHERS


def task_of(folder: str) -> tuple[str, str | None]:
    """A task's name and part from the name of its folder.

    "tfds_crema_d-1.0.0-full" is "crema_d", "nsynth_pitch-v2.2.3-5h" "nsynth_pitch_5h" (its 50 hours are the whole), and
    "beehive_states_fold0-v2-full" the part "fold0" of "beehive_states".
    """
    name, *_, size = folder.split("-") if "-" in folder else (folder, "full")
    name = name.removeprefix("tfds_") + ("_5h" if size == "5h" else "")
    found = re.fullmatch(r"(\w+)_(fold\d+)", name)
    return (found[1], found[2]) if found else (name, None)


def records_of(found: Sequence[TaskScores], encoder: ScoredEncoder) -> list[ResultRecord]:
    """A record for each task and metric; its values are by fold, and parts of a task are its folds."""
    by_task: dict[str, list[TaskScores]] = defaultdict(list)
    for item in found:
        by_task[item.task].append(item)
    records = []
    for task, items in by_task.items():
        parts = [item.part for item in items]
        double = [item for item in items if None in parts or parts.count(item.part) > 1]
        if len(double) > 1:
            raise m2dx.M2dxError(
                f"a task must be there once, and each of its folds, but {task} is in "
                f"{', '.join(str(item.path) for item in double)}; give the folder of one"
            )
        folds = {
            " ".join(filter(None, (item.part, name))): scores
            for item in items
            for name, scores in item.folds.items()
        }
        alone = f"of {items[0].part} alone" if len(items) == 1 and items[0].part is not None else None
        for metric in dict.fromkeys(metric for scores in folds.values() for metric in scores):
            values = tuple(scores[metric] for scores in folds.values() if metric in scores)
            records.append(
                ResultRecord(
                    date=datetime.fromtimestamp(
                        max(item.path.stat().st_mtime for item in items), UTC
                    ).replace(microsecond=0),
                    encoder=encoder,
                    task=task,
                    protocol=Protocol("hear", "hear", {"statistics": items[0].statistics}),
                    metric=METRICS.get(metric, metric),
                    mean=sum(values) / len(values),
                    ci95=half_width_95(values),
                    values=values,
                    division=Division(len(values)),
                    warnings=(alone,) if alone else (),
                    details={
                        "folders": [str(item.path.parent) for item in items],
                        "metric": metric,
                        "folds": list(folds),
                        "hparams": items[0].about.get("hparams"),
                    },
                    versions=package_versions(),
                )
            )
    return records


def _scored_encoder(path: str) -> ScoredEncoder:
    from m2dx.results.scoring import name_of_encoder, scored_encoder  # which is slow to import

    encoder, place = m2dx.load_encoder(path), find_encoder(path).resolve()
    return scored_encoder(name_of_encoder(place), encoder, place)
