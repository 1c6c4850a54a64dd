"""The check of evaluators, on a small task of tones."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2dx.contract.components import EvaluationTask, Evaluator, Score
from m2dx.contract.errors import RecipeError
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation.features import MeanLogMel
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.testing.rules import Subject
from m2dx.testing.samples import SoundFiles, write_csv

SEEDS = (0, 1)


def check_evaluator(cls: type[Evaluator], task: EvaluationTask | None = None, /, **options: Any) -> None:
    """Checks an evaluator on a small network and on the mean-log-mel baseline; `task` replaces the trial task.

    It may refuse the baseline, which has `clip` only, with `RecipeError`.
    """
    subject = Subject.of("evaluator", cls, options)
    evaluator: Evaluator = subject.build()
    model = ModelSection(size="tiny", depth=1)
    network = random_encoder(AudioSection(crop_seconds=0.64), model, mean=-7.0, std=4.0, seed=0)
    with tone_task() if task is None else nullcontext(task) as used:
        for encoder in (network, MeanLogMel(AudioSection()).eval()):
            _check_encoder(subject, evaluator, encoder, used)


@contextmanager
def tone_task() -> Iterator[EvaluationTask]:
    """A labelled task of noisy tones of three pitches; its files exist inside the context."""
    with tempfile.TemporaryDirectory() as folder:
        files, rows, random = SoundFiles(Path(folder)), [], np.random.default_rng(0)
        for label, hertz in {"low": 300.0, "middle": 900.0, "high": 2700.0}.items():
            for take, split in enumerate(("train",) * 4 + ("valid",) * 2 + ("test",) * 2):
                pitch = hertz * random.uniform(0.8, 1.25)
                files.add_tone(f"{label}{take}.wav", pitch, seconds=0.5, noise=0.05, seed=take)
                rows.append((f"{label}{take}.wav", label, split))
        write_csv(files.folder / "tones.csv", "path,label,split", rows)
        yield ClipTask.from_dataset("tones", CsvDataset(path=files.folder / "tones.csv"), unit_seconds=0.5)


def _check_encoder(subject: Subject, evaluator: Evaluator, encoder: Any, task: EvaluationTask) -> None:
    before, found = copy.deepcopy(encoder.state_dict()), []
    for seeds in (SEEDS[:1], SEEDS, SEEDS):
        with subject.attempt(f"evaluate on {type(encoder).__name__} (seeds {seeds})"):
            try:
                scores = evaluator.evaluate(encoder, task, seeds=seeds)
            except RecipeError:
                if isinstance(encoder, MeanLogMel):
                    return
                raise
        listed = bool(scores) and isinstance(scores, list)
        subject.must(listed, "evaluate must give a list of one score or more")
        for score in scores:
            _check_score(subject, score, task)
        found.append([(score.mean, score.values) for score in scores])
    same = found[1] == found[2]
    subject.must(same, "the same seeds must give the same scores; let everything random follow them")
    kept = all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    text = "the encoder must be left as it was, its weights and in eval mode; copy it to train it"
    subject.must(kept and not encoder.training, text)


def _check_score(subject: Subject, score: Score, task: EvaluationTask) -> None:
    subject.must(isinstance(score, Score), f"evaluate must give m2dx.Score objects, but gave {score!r}")
    mean, values, half = score.mean, score.values, score.ci95
    share = score.metric not in ("accuracy", "mAP") or 0.0 <= mean <= 1.0
    finite = bool(values) and all(map(math.isfinite, (mean, *values)))
    rules = {
        f"a score's task must be {task.name!r}, but is {score.task!r}": score.task == task.name,
        f"its protocol must be {subject.name!r}, but is {score.protocol!r}": score.protocol == subject.name,
        f"mean and values must be finite, with one value or more, but are {mean}, {values}": finite,
        f"the mean ({mean}) must lie among the values {values}": finite
        and min(values) - 1e-6 <= mean <= max(values) + 1e-6,
        f"{score.metric} must be in [0, 1], but is {mean}; not in %": share,
        f"ci95 must be None or 0 or more, but is {half}": half is None or 0 <= half < math.inf,
        "its predictions must be of the task's clips and classes, with probabilities in [0, 1]": all(
            item.clip in task.clips and item.label in task.label_names and 0 <= item.probability <= 1
            for item in score.predictions
        ),
    }
    for text, holds in rules.items():
        subject.must(holds, text)
    with subject.attempt("writing a score as JSON, its details included,"):
        json.dumps(asdict(replace(score, predictions=())), allow_nan=False)
