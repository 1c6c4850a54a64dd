"""The check of evaluators, on a small task of tones."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import nn

from m2dx.contract.components import Clip, Dataset, EvaluationTask, Evaluator, Score
from m2dx.contract.errors import RecipeError
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation.features import MeanLogMel
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.testing.rules import Subject

SEEDS = (0, 1)
_RATE = 16_000
_SPLITS = ("train",) * 4 + ("valid",) * 2 + ("test",) * 2
_PITCHES = {"low": 300.0, "middle": 900.0, "high": 2700.0}  # Hz


def check_evaluator(cls: type[Evaluator], task: EvaluationTask | None = None, /, **options: Any) -> None:
    """Checks an evaluator on a small network and on the mean-log-mel baseline; `task` replaces the trial task.

    It may refuse the baseline, which has `clip` only, with `RecipeError`. Raises `ComponentCheckError`.
    """
    subject = Subject.of("evaluator", cls, options)
    with subject.attempt("__init__"):
        evaluator: Evaluator = subject.build()
    with tone_task() if task is None else _given(task) as used:
        model = ModelSection(size="tiny", depth=1)
        network = random_encoder(AudioSection(crop_seconds=0.64), model, mean=-7.0, std=4.0, seed=0)
        _check_encoder(subject, evaluator, network, used)
        try:
            _check_encoder(subject, evaluator, MeanLogMel(AudioSection()).eval(), used)
        except RecipeError:
            return


@contextmanager
def _given(task: EvaluationTask) -> Iterator[EvaluationTask]:
    yield task


@contextmanager
def tone_task() -> Iterator[EvaluationTask]:
    """A labelled task of noisy tones of three pitches, whose files last as long as the context."""
    with tempfile.TemporaryDirectory() as folder:
        yield ClipTask.from_dataset("tones", _Tones(Path(folder)), unit_seconds=0.5)


class _Tones(Dataset):
    name = "tones"

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        time = np.arange(_RATE // 2) / _RATE
        self._clips: list[Clip] = []
        for label, hertz in _PITCHES.items():
            for number, split in enumerate(_SPLITS):
                path = folder / f"{label}{number}.wav"
                tone = np.sin(2 * np.pi * hertz * random.uniform(0.8, 1.25) * time)
                soundfile.write(path, 0.3 * tone + random.normal(scale=0.05, size=time.size), _RATE)
                self._clips.append(Clip(path, labels=(label,), split=split))

    def clips(self, split: str | None = None) -> list[Clip]:
        return [clip for clip in self._clips if split in (None, clip.split)]


def _check_encoder(subject: Subject, evaluator: Evaluator, encoder: nn.Module, task: EvaluationTask) -> None:
    before = copy.deepcopy(encoder.state_dict())
    by_seeds = [_evaluate(subject, evaluator, encoder, task, seeds) for seeds in ((SEEDS[0],), SEEDS, SEEDS)]
    for scores in by_seeds:
        subject.must(
            bool(scores) and isinstance(scores, list), "evaluate must give a list of one score or more"
        )
        for score in scores:
            _check_score(subject, score, task)
    first, again = ([(score.mean, score.values) for score in scores] for scores in by_seeds[1:])
    subject.must(
        first == again, "the same seeds must give the same scores; let everything random follow them"
    )
    same = _equal(before, encoder.state_dict()) and not encoder.training
    subject.must(
        same, "the encoder must be left as it was, with its weights and in eval mode; copy it to train it"
    )


def _evaluate(
    subject: Subject, evaluator: Evaluator, encoder: Any, task: EvaluationTask, seeds: tuple[int, ...]
) -> list[Score]:
    try:
        return evaluator.evaluate(encoder, task, seeds=seeds)
    except Exception as error:
        if isinstance(error, RecipeError) and isinstance(encoder, MeanLogMel):
            raise
        subject.fail(
            f"evaluate must work on {type(encoder).__name__} (seeds {seeds}), but raised "
            f"{type(error).__name__}: {error}"
        )


def _equal(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, after[name]) for name, value in before.items())


def _check_score(subject: Subject, score: Score, task: EvaluationTask) -> None:
    subject.must(isinstance(score, Score), f"evaluate must give m2dx.Score objects, but gave {score!r}")
    subject.must(score.task == task.name, f"a score's task must be {task.name!r}, but is {score.task!r}")
    subject.must(
        score.protocol == subject.name, f"its protocol must be {subject.name!r}, but is {score.protocol!r}"
    )
    finite = math.isfinite(score.mean) and all(map(math.isfinite, score.values)) and bool(score.values)
    subject.must(
        finite,
        f"mean and values must be finite, with one value or more, but are {score.mean}, {score.values}",
    )
    within = min(score.values) - 1e-6 <= score.mean <= max(score.values) + 1e-6
    subject.must(within, f"the mean ({score.mean}) must lie among the values {score.values}")
    if score.metric in ("accuracy", "mAP"):
        subject.must(
            0.0 <= score.mean <= 1.0, f"{score.metric} must be in [0, 1], but is {score.mean}; not in %"
        )
    half = score.ci95
    subject.must(
        half is None or (math.isfinite(half) and half >= 0), f"ci95 must be None or 0 or more, but is {half}"
    )
    with subject.attempt("writing a score as JSON, its details included,"):
        json.dumps(asdict(score), allow_nan=False)
