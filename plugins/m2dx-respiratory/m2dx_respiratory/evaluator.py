"""The fine-tuning evaluation on respiratory sounds: sensitivity, specificity and Score of ICBHI 2017."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

import m2dx
from m2dx.evaluation.features import device_of
from m2dx_respiratory.finetuning import (
    EpochResult,
    FinetunedClassifier,
    FitData,
    FitSettings,
    LinearClassifier,
    Precision,
    Schedule,
    best_epoch,
    fit,
)
from m2dx_respiratory.units import feature_units, logmel_units

logger = logging.getLogger(__name__)

METRICS = ("specificity", "sensitivity", "score")
BEST, FROZEN = " (best epoch on test, optimistic)", " (linear layer only)"
"""What stands behind a metric's name where it is not that of the last epoch, or not of fine-tuning."""
PUBLISHED_UNIT_SECONDS = 8.0


class IcbhiEvaluator(m2dx.Evaluator):
    """Fine-tunes the encoder on respiratory cycles; specificity, sensitivity and Score (M2D-X, IV-E, table XIII).

    A copy of the whole network is trained, with a linear layer on the mean of its frames over time, by cross entropy,
    on units of the task's `unit_seconds`: longer cycles are cut, shorter ones repeated in a circle, whatever
    `short_clips` is. Another length than the paper's 8 s is warned of. Specificity (Sp) is the share of normal cycles
    that are called normal, sensitivity (Se) the share of all others whose own class is found, Score the mean of both.

    There is no early stopping, so that training and validation part are trained on. The scores are those of the last
    epoch. Papers often give those of the best epoch, chosen on the test part itself: they are reported too, marked as
    optimistic, at the epoch with the best Score. Seeds set the linear layer and the order; intervals are over seeds.

    Encoders that are no `AudioEncoder`, such as the mean_logmel baseline, keep their weights: the linear layer alone is
    trained, on standardised features of the same units, with `frozen_learning_rate`. Its metrics are marked "linear
    layer only", and are those of the last epoch.

    Raises RecipeError before anything is trained for tasks with several labels per clip or without the class `normal`,
    and in the evaluation for those without both kinds of cycles in a test part.

    Beyond the paper's text, its settings are those of the code that it took over: no batch norm before the linear
    layer, the patch embedding frozen, weight decay. That code also masks stripes of the spectrograms (`mel_mask` 20,
    `time_mask` 40), which is off here by default.

    Options:
        epochs: passes over the training part; 150 for ICBHI 2017, 50 for SPRSound in the paper
        batch_size: cycles per optimizer step
        accumulate: pieces that a batch is divided into, to save memory (4 in the paper); the result is the same
        learning_rate: of Adam; 5e-5 for ICBHI 2017, 5e-6 for SPRSound in the paper
        schedule: constant (the paper's), or cosine down to 0 over all epochs
        weight_decay: L2 penalty
        class_weights: weigh the cross entropy inversely to the classes' frequencies; the code that the paper took over
            does so for ICBHI 2017, but not for SPRSound
        freeze_patch_embed: keep the encoder's patch embedding as it is (M2D-X, IV-A)
        frozen_learning_rate: of Adam for the linear layer alone, where the encoder keeps its weights
        fade_seconds: fade at both ends of each copy of a cycle, s
        mel_mask: most mel bands that each of two random stripes sets to the lowest value of the unit's log-mel in
            training; 0: none
        time_mask: most frames that each of two random stripes sets to it in training; 0: none
        precision: arithmetic of the forward pass (autocast), fp32 or bf16
        normal: class of healthy cycles, in upper or lower case; the others count for sensitivity
    """

    name = "icbhi"

    def __init__(
        self,
        *,
        epochs: PositiveInt = 150,
        batch_size: PositiveInt = 64,
        accumulate: PositiveInt = 1,
        learning_rate: PositiveFloat = 5e-5,
        schedule: Schedule = "constant",
        weight_decay: NonNegativeFloat = 1e-4,
        class_weights: bool = True,
        freeze_patch_embed: bool = True,
        frozen_learning_rate: PositiveFloat = 1e-3,
        fade_seconds: NonNegativeFloat = 0.0625,
        mel_mask: NonNegativeInt = 0,
        time_mask: NonNegativeInt = 0,
        precision: Precision = "fp32",
        normal: str = "normal",
    ) -> None:
        self.settings = FitSettings(
            epochs=epochs,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            schedule=schedule,
            weight_decay=weight_decay,
            precision=precision,
            class_weights=class_weights,
            mel_mask=mel_mask,
            time_mask=time_mask,
        )
        self.freeze_patch_embed, self.frozen_learning_rate = freeze_patch_embed, frozen_learning_rate
        self.fade_seconds, self.normal = fade_seconds, normal

    def check(self, task: m2dx.EvaluationTask) -> None:
        """Raises RecipeError where a clip has several labels, or `normal` is no class."""
        if task.multi_label:
            raise m2dx.RecipeError(
                f"{self.name}: evaluation task {task.name!r} must have one label per clip, but some have several"
            )
        if self.normal.casefold() not in _folded(task.label_names):
            raise m2dx.RecipeError(
                f"{self.name}: `normal` must be a class of evaluation task {task.name!r} "
                f"({', '.join(task.label_names)}), but is {self.normal!r}"
            )

    def evaluate(
        self, encoder: m2dx.ClipEncoder, task: m2dx.EvaluationTask, *, seeds: tuple[int, ...]
    ) -> list[m2dx.Score]:
        """Specificity, sensitivity and Score of the last epoch, then of the best one on the test part.

        Of a linear layer alone there are those of the last epoch.
        """
        y, normal = self._checked(task)
        warnings = self._warnings(task)
        if isinstance(encoder, m2dx.AudioEncoder):
            trained, inputs = "whole network", logmel_units(encoder, task, fade_seconds=self.fade_seconds)
        else:
            trained, inputs = "linear layer", feature_units(encoder, task, fade_seconds=self.fade_seconds)
        runs: list[list[list[EpochResult]]] = []  # by fold, seed, epoch
        for fold in task.folds:
            train = torch.from_numpy(fold.fitted)
            data = FitData(inputs, y, train, torch.from_numpy(fold.test), len(task.label_names), normal)
            runs.append([self._run(encoder, data, f"{task.name}, {fold.name}", seed) for seed in seeds])
        details = {"trained": trained, **self._details(task), "warnings": [*task.warnings, *warnings]}
        last = [[-1] * len(seeds)] * len(runs)
        if not isinstance(encoder, m2dx.AudioEncoder):
            return _scores(task, runs, last, FROZEN, details)
        best = [[best_epoch(epochs) for epochs in by_seed] for by_seed in runs]
        numbers = {"best_epochs": [[number + 1 for number in by_seed] for by_seed in best]}
        return [
            *_scores(task, runs, last, "", details),
            *_scores(task, runs, best, BEST, {**details, **numbers}),
        ]

    def _run(self, encoder: m2dx.ClipEncoder, data: FitData, where: str, seed: int) -> list[EpochResult]:
        settings = self.settings
        if not isinstance(encoder, m2dx.AudioEncoder):
            settings = replace(settings, learning_rate=self.frozen_learning_rate, mel_mask=0, time_mask=0)

        def build() -> nn.Module:
            if isinstance(encoder, m2dx.AudioEncoder):
                return FinetunedClassifier(
                    encoder, data.num_classes, freeze_patch_embed=self.freeze_patch_embed
                )
            return LinearClassifier(data.inputs[data.train], data.num_classes)

        what = f"{self.name}, {where}, seed {seed}"
        return fit(build, data, settings, device=device_of(encoder), seed=seed, what=what)

    def _checked(self, task: m2dx.EvaluationTask) -> tuple[Tensor, int]:
        """Class numbers (n,), and the number of the normal class."""
        self.check(task)
        y = torch.from_numpy(task.targets()).argmax(1)
        normal = _folded(task.label_names).index(self.normal.casefold())
        for fold in task.folds:
            healthy = int((y[torch.from_numpy(fold.test)] == normal).sum())
            if healthy in (0, len(fold.test)):
                raise m2dx.RecipeError(
                    f"{self.name}: the test part {fold.name!r} of evaluation task {task.name!r} must have clips of "
                    f"{self.normal!r} and of other classes, but has {healthy} and {len(fold.test) - healthy}"
                )
        return y, normal

    def _warnings(self, task: m2dx.EvaluationTask) -> list[str]:
        """What makes the scores other ones than the paper's, logged."""
        seconds = task.unit_seconds
        assert seconds is not None  # of audio
        if math.isclose(seconds, PUBLISHED_UNIT_SECONDS):
            return []
        warning = (
            f"units have {seconds:.3g} s, but those of the paper {PUBLISHED_UNIT_SECONDS:g} s: scores are "
            f"not comparable with published ones unless the task has `unit_seconds: {PUBLISHED_UNIT_SECONDS:g}`"
        )
        logger.warning("%s: evaluation task %r: %s", self.name, task.name, warning)
        return [warning]

    def _details(self, task: m2dx.EvaluationTask) -> dict[str, object]:
        return {
            **asdict(self.settings),
            "freeze_patch_embed": self.freeze_patch_embed,
            "frozen_learning_rate": self.frozen_learning_rate,
            "fade_seconds": self.fade_seconds,
            "classes": list(task.label_names),
            "folds": len(task.folds),
            "clips": len(task.clips),
            "bad_clips": len(task.bad),
            "unit_seconds": task.unit_seconds,
        }


def _folded(names: Sequence[str]) -> list[str]:
    return [name.casefold() for name in names]


def _scores(
    task: m2dx.EvaluationTask,
    runs: Sequence[Sequence[Sequence[EpochResult]]],
    epochs: Sequence[Sequence[int]],
    remark: str,
    details: dict[str, object],
) -> list[m2dx.Score]:
    """The three scores at one epoch of each run (folds, seeds), with a remark behind the metric's name.

    As in the other protocols, values are by seed (means over the folds), or by fold where there is one seed.
    """
    chosen = [
        [run[number] for run, number in zip(*by_seed, strict=True)]
        for by_seed in zip(runs, epochs, strict=True)
    ]
    confusion = torch.stack([result.confusion for by_seed in chosen for result in by_seed]).sum(0)
    scores = []
    for metric in METRICS:
        table = np.array([[getattr(result.scores, metric) for result in by_seed] for by_seed in chosen])
        values = tuple(map(float, table.mean(0) if table.shape[1] > 1 else table[:, 0]))
        scores.append(
            m2dx.Score(
                task=task.name,
                metric=metric + remark,
                mean=float(np.mean(values)),
                ci95=m2dx.half_width_95(values),
                values=values,
                protocol=IcbhiEvaluator.name,
                details={**details, "confusion": confusion.tolist()},
            )
        )
    return scores
