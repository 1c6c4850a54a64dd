"""The check of evaluators, on a small task of tones."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2dx.contract.components import EvaluationTask, Evaluator
from m2dx.contract.errors import RecipeError
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation.features import MeanLogMel
from m2dx.evaluation.runner import score_problems
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
        with subject.attempt("looking at the scores"):
            for problem in score_problems(scores, task):
                subject.fail(problem)
        subject.must(bool(scores), "evaluate must give a list of one score or more")
        for score in scores:
            own = f"its protocol must be {subject.name!r}, but is {score.protocol!r}"
            subject.must(score.protocol == subject.name, own)
        found.append([(score.mean, score.values) for score in scores])
    same = found[1] == found[2]
    subject.must(same, "the same seeds must give the same scores; let everything random follow them")
    kept = all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    text = "the encoder must be left as it was, its weights and in eval mode; copy it to train it"
    subject.must(kept and not encoder.training, text)
