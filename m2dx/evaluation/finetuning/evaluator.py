"""The evaluator that fine-tunes a copy of the encoder (M2D-X, IV-B, table II)."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from m2dx.contract.components import ClipEncoder, EvaluationTask, Evaluator, Fold, Score
from m2dx.contract.errors import RecipeError
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.finetuned import FinetunedNetwork, Head, NetworkFolder
from m2dx.evaluation.features import bytes_of, device_of
from m2dx.evaluation.finetuning.augmentation import Augmentation
from m2dx.evaluation.finetuning.examples import AudioExamples, Examples, FeatureExamples
from m2dx.evaluation.finetuning.training import (
    WEIGHT_DECAY,
    OptimizerName,
    Outcome,
    Precision,
    Run,
    RunClips,
    TrainingSettings,
)
from m2dx.evaluation.metrics import summarise

LINEAR_ONLY = " (linear layer only)"
"""What stands behind the metric's name where the encoder has no network to train."""
Rows = NDArray[np.int64]
Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]


class Finetune(Evaluator):
    """Fine-tunes a copy of the encoder (M2D-X, IV-B), batch norm and a linear layer on its features; accuracy or mAP.

    The whole network is trained by cross entropy, or binary cross entropy where clips have several labels. Longer
    clips are cropped to `unit_seconds` at random in training, and cut to their beginning in tests. recipes/finetune has
    a part for each column of table II; the defaults here are those of VoxCeleb1.

    Where the task has a validation split, the epoch with the best score on it is tested. Elsewhere (folds, or train and
    test alone) all clips but the test part are trained on, and the last epoch is tested; the published code tests after
    each epoch there and gives the best, which is optimistic. Seeds set the linear layer, the order and augmentation.

    Beyond the paper's text, its settings are those of the published code: learning rates are final ones, not per 256
    clips; the loss is the mean over clips and classes; momentum 0.9, and AdamW with betas 0.9 and 0.95 and AMSGrad;
    mixup mixes waveforms. Masks are each clip's own here, the published ones the batch's; the rest of less than a batch
    waits for another epoch.

    An encoder that is no `AudioEncoder`, such as the mean_logmel baseline, keeps its weights: the batch norm and linear
    layer alone are trained, without augmentation, and the metric is marked "linear layer only".

    Options:
        lr: learning rate at its peak, as in table II; it is not scaled by the batch.
        batch_size: clips per optimizer step; at most the training part.
        accumulate: pieces that a batch is divided into, to save memory; batch norm sees one piece at a time.
        optimizer: sgd, lars or adamw; timm's LARS is SGD with momentum unless there is weight decay.
        weight_decay: default as published, 1e-4 for adamw, else 0.
        epochs: passes over the training part, or over `epoch_size` clips.
        warmup_epochs: those of linear warm-up among them; then half a cosine to 0, per step.
        epoch_size: clips per epoch, drawn by their weights without replacement (AS2M, 200,000); default each clip once.
        mixup: ratio of table II, as alpha of the Beta distribution that shares are drawn from; 0 is off.
        random_resize_crop: random crops of the log-mel, resized (BYOL-A's).
        freq_mask: SpecAugment's frequency mask hides fewer mel bands than this; 0 is off.
        time_mask: its time mask hides fewer frames than this; 0 is off.
        patchout: share of patches that structured patchout drops in training, whole rows and columns; features are then
            the mean over patches, as wide as a token; 0 is off.
        adjust_positions: interpolate positions for clips longer than the model's input, instead of splitting them.
        freeze_patch_embed: keep the patch embedding as it is.
        precision: arithmetic of the network (autocast), fp32 or bf16.
        cache_gb: memory for waveforms that are the same in each epoch, GB; changes no result.
        checkpoint_dir: folder for the state of each run after each epoch (several times the network's size), from which
            the same evaluation goes on after a stop; default none.
        save_dir: folder for the fine-tuned networks, one folder per fold and seed, which `m2dx classify` and
            `m2dx.load_classifier` use; default none.
    """

    name = "finetune"

    def __init__(
        self,
        *,
        lr: PositiveFloat = 5e-4,
        batch_size: PositiveInt = 64,
        accumulate: PositiveInt = 1,
        optimizer: OptimizerName = "adamw",
        weight_decay: NonNegativeFloat | None = None,
        epochs: PositiveInt = 50,
        warmup_epochs: NonNegativeInt = 5,
        epoch_size: PositiveInt | None = None,
        mixup: NonNegativeFloat = 0.0,
        random_resize_crop: bool = False,
        freq_mask: NonNegativeInt = 30,
        time_mask: NonNegativeInt = 48,
        patchout: Ratio = 0.0,
        adjust_positions: bool = True,
        freeze_patch_embed: bool = False,
        precision: Precision = "fp32",
        cache_gb: NonNegativeFloat = 2.0,
        checkpoint_dir: Path | None = None,
        save_dir: Path | None = None,
    ) -> None:
        """RecipeError where two options do not fit."""
        if warmup_epochs >= epochs:
            raise RecipeError(
                f"{self.name}: warmup_epochs must be less than epochs ({epochs}), but is {warmup_epochs}"
            )
        if batch_size < 2 * accumulate:
            raise RecipeError(
                f"{self.name}: batch_size must be 2 x accumulate or more, since batch norm needs two clips, but is "
                f"{batch_size} with accumulate {accumulate}"
            )
        self.settings = TrainingSettings(
            lr=lr,
            batch_size=batch_size,
            accumulate=accumulate,
            optimizer=optimizer,
            weight_decay=WEIGHT_DECAY[optimizer] if weight_decay is None else weight_decay,
            epochs=epochs,
            warmup_epochs=warmup_epochs,
            epoch_size=epoch_size,
            precision=precision,
        )
        self.augmentation = Augmentation(mixup, random_resize_crop, freq_mask, time_mask)
        self.patchout, self.adjust_positions = patchout, adjust_positions
        self.freeze_patch_embed = freeze_patch_embed
        self.cache_gb, self.checkpoint_dir, self.save_dir = cache_gb, checkpoint_dir, save_dir

    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """One score, over folds and seeds.

        Raises RecipeError where a training part has one clip only, TrainingError for a loss that is not finite.
        """
        examples: Examples
        if isinstance(encoder, AudioEncoder):
            examples = AudioExamples(encoder, task, self.augmentation, cache_gb=self.cache_gb)
        else:
            examples = FeatureExamples(encoder, task)
        wanted = self.checkpoint_dir is not None or self.save_dir is not None
        identity = self._identity(encoder, task) if wanted else ""
        outcomes = [
            [self._run(encoder, task, examples, fold, seed, identity) for seed in seeds]
            for fold in task.folds
        ]
        score = summarise(
            task,
            [[outcome.score for outcome in row] for row in outcomes],
            protocol=self.name,
            details={
                **self._settings(),
                "trained": "whole network" if isinstance(encoder, AudioEncoder) else "linear layer",
                "tested_epoch": "best on validation" if _has_valid(task) else "last",
                "tested_epochs": [[outcome.epoch for outcome in row] for row in outcomes],
                "validation_scores": [[outcome.valid for outcome in row] for row in outcomes],
                **(
                    {"saved": [[outcome.saved for outcome in row] for row in outcomes]}
                    if self.save_dir
                    else {}
                ),
            },
        )
        if not isinstance(encoder, AudioEncoder):
            score = replace(score, metric=score.metric + LINEAR_ONLY)
        return [score]

    def _run(
        self,
        encoder: ClipEncoder,
        task: EvaluationTask,
        examples: Examples,
        fold: Fold,
        seed: int,
        identity: str,
    ) -> Outcome:
        def build() -> nn.Module:
            if not isinstance(encoder, AudioEncoder):
                return Head(encoder.embed_dim, len(task.label_names))
            return FinetunedNetwork(
                encoder,
                len(task.label_names),
                patchout=self.patchout,
                adjust_positions=self.adjust_positions,
                freeze_patch_embed=self.freeze_patch_embed,
            )

        what = f"{self.name}, {task.name}, {fold.name}, seed {seed}"
        run = Run(
            build,
            examples,
            _run_clips(task, fold),
            self.settings,
            device=device_of(encoder),
            seed=seed,
            what=what,
        )
        name = re.sub(r"[^\w.-]+", "_", f"{task.name}-{fold.name}-seed{seed}-{identity[:16]}")
        checkpoint = None if self.checkpoint_dir is None else self.checkpoint_dir / f"{name}.pt"
        if self.save_dir is None or not isinstance(encoder, AudioEncoder):
            return run.finish(checkpoint)
        about = {"fold": fold.name, "seed": seed, "settings": self._settings()}
        return run.finish(checkpoint, NetworkFolder(self.save_dir / name, task, about))

    def _settings(self) -> dict[str, object]:
        return {
            **asdict(self.settings),
            **asdict(self.augmentation),
            "patchout": self.patchout,
            "adjust_positions": self.adjust_positions,
            "freeze_patch_embed": self.freeze_patch_embed,
        }

    def _identity(self, encoder: ClipEncoder, task: EvaluationTask) -> str:
        """A digest of all that sets a run's result, but the fold and the seed."""
        digest = hashlib.sha256()
        clips = [
            [str(clip.path), clip.start, clip.duration, clip.labels, clip.split, clip.weight]
            for clip in task.clips
        ]
        facts: dict[str, object] = {"settings": self._settings(), "clips": clips, "labels": task.label_names}
        facts |= {"unit_seconds": task.unit_seconds, "short_clips": task.short_clips}
        facts |= {"folds": [[part.tolist() for part in _parts(task, fold)] for fold in task.folds]}
        facts["encoder"] = type(encoder).__name__
        if isinstance(encoder, AudioEncoder):
            facts |= {"mean": encoder.mean, "std": encoder.std, "rate": encoder.sample_rate}
            facts |= {"hop": encoder.logmel.hop_length, "grid": str(encoder.encoder.grid)}
        digest.update(json.dumps(facts, sort_keys=True).encode())
        if isinstance(encoder, nn.Module):
            for name, tensor in [*encoder.named_parameters(), *encoder.named_buffers()]:
                digest.update(name.encode())
                digest.update(bytes_of(tensor))
        return digest.hexdigest()


def _has_valid(task: EvaluationTask) -> bool:
    """Whether the task has a validation split of its own; elsewhere m2dx holds clips out, or takes a fold."""
    return len(task.folds) == 1 and any(clip.split == "valid" for clip in task.clips)


def _parts(task: EvaluationTask, fold: Fold) -> tuple[Rows, Rows, Rows]:
    """Rows for training, validation (none where the task has no such split) and test."""
    if _has_valid(task):
        return fold.train, fold.valid, fold.test
    return np.sort(np.concatenate([fold.train, fold.valid])), np.empty(0, dtype=np.int64), fold.test


def _run_clips(task: EvaluationTask, fold: Fold) -> RunClips:
    train, valid, test = map(torch.from_numpy, _parts(task, fold))
    if len(train) < 2:
        raise RecipeError(
            f"{Finetune.name}: the training part {fold.name!r} of evaluation task {task.name!r} must have two clips "
            f"or more, but has {len(train)}"
        )
    targets = torch.from_numpy(task.targets())
    return RunClips(
        train=train,
        weights=torch.tensor([task.clips[row].weight for row in train.tolist()], dtype=torch.float64),
        valid=valid if len(valid) else None,
        test=test,
        y=targets if task.multi_label else targets.argmax(1),
    )
