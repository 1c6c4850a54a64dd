"""The evaluator that fine-tunes a copy of the encoder on a labelled task (M2D-X, IV-B, table II)."""

from __future__ import annotations

import copy
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from m2dx.contract.components import ClipEncoder, EvaluationTask, Evaluator, Fold, Score
from m2dx.contract.errors import AudioError, CheckpointError, RecipeError, TrainingError
from m2dx.contract.package import package_version
from m2dx.data.batches import epoch_order
from m2dx.data.crops import AudioCrops
from m2dx.data.pcm import float_samples
from m2dx.encoder.audio import AudioEncoder, Head
from m2dx.encoder.checkpoint import read_checked, write_atomically
from m2dx.encoder.finetuned import FinetunedNetwork
from m2dx.evaluation.features import device_of, digest_of_features, read_ahead, targets_of
from m2dx.evaluation.metrics import score_of, summarise
from m2dx.model.precision import autocast
from m2dx_finetune.augmentation import (
    StepRandom,
    mask_stripes,
    mixup,
    random_resize_crop,
    structured_patchout,
)
from m2dx_finetune.saving import NetworkFolder

logger = logging.getLogger(__name__)

LINEAR_ONLY = " (linear layer only)"
"""Appended to the metric's name if the encoder has no network to train."""
MOMENTUM = 0.9
BETAS = (0.9, 0.95)
OptimizerName = Literal["sgd", "lars", "adamw"]
WEIGHT_DECAY: dict[OptimizerName, float] = {"sgd": 0.0, "lars": 0.0, "adamw": 1e-4}
"""The published code's."""


@dataclass(kw_only=True, eq=False)
class Finetune(Evaluator):
    """Fine-tunes a copy of the encoder (M2D-X, IV-B), batch norm and a linear layer on its features; accuracy or mAP.

    The whole network is trained by cross entropy, or by binary cross entropy if clips have several labels. Longer clips
    are cropped to `unit_seconds`: at random in training, from their start in tests. recipes/finetune has a part for
    each column of table II; the defaults are those of VoxCeleb1.

    If the task has a validation split, the epoch with the best validation score is tested. Without one (folds, or only
    train and test) all clips but the test part are trained on, and the last epoch is tested. In that case the published
    code reports the best test of all epochs, which is optimistic. Seeds set linear layer, order and augmentation.

    Settings that the paper does not state are those of the published code: learning rates are final, not per 256 clips;
    the loss is the mean over clips and classes; momentum is 0.9, and AdamW has betas 0.9 and 0.95 and AMSGrad; mixup
    mixes waveforms. Unlike in the published code, each clip has masks of its own instead of the batch's, and clips that
    do not fill a batch are left out of the epoch.

    For an encoder that is no `AudioEncoder`, such as the mean_logmel baseline, only the batch norm and the linear layer
    are trained, without augmentation, and the metric is marked "linear layer only".

    Options:
        lr: learning rate at its peak, as in table II; it is not scaled by the batch.
        batch_size: clips per optimizer step; at most the training part.
        accumulate: micro-batches of a batch, to save memory; batch norm sees one micro-batch at a time.
        optimizer: sgd, lars or adamw; timm's LARS is SGD with momentum unless there is weight decay.
        weight_decay: default as published, 1e-4 for adamw, else 0.
        epochs: passes over the training part, or over `epoch_size` clips.
        warmup_epochs: the first of them, with linear warm-up; then a cosine to 0, per step. As in the published code,
            the cosine counts from the first epoch: the rate falls a little short of the peak (1.78 for 2.0, AS2M).
        epoch_size: clips per epoch, drawn by their weights without replacement (AS2M, 200,000); default each clip once.
        mixup: ratio of table II, the alpha of the Beta distribution of the shares; 0 is off.
        random_resize_crop: random crops of the log-mel, resized (BYOL-A's).
        freq_mask: SpecAugment's frequency mask hides fewer mel bands than this number; 0 is off.
        time_mask: SpecAugment's time mask hides fewer frames than this number; 0 is off.
        patchout: share of patches that structured patchout drops in training, whole rows and columns; features are then
            the mean over patches, as wide as a token; 0 is off.
        adjust_positions: interpolate positions for clips longer than the model's input, instead of splitting them.
        freeze_patch_embed: keep the patch embedding as it is.
        precision: arithmetic of the network (autocast), fp32 or bf16.
        cache_gb: memory for waveforms that are the same in each epoch, GB; changes no result.
        checkpoint_dir: folder for the state of each run after each epoch (several times the network's size), from which
            the same evaluation resumes after a stop; default none.
        save_dir: folder for the fine-tuned networks, one folder per fold and seed, which `m2dx classify` and
            `m2dx.load_classifier` use; default none.
    """

    name = "finetune"

    lr: PositiveFloat = 5e-4
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    optimizer: OptimizerName = "adamw"
    weight_decay: NonNegativeFloat | None = None
    epochs: PositiveInt = 50
    warmup_epochs: NonNegativeInt = 5
    epoch_size: PositiveInt | None = None
    mixup: NonNegativeFloat = 0.0
    random_resize_crop: bool = False
    freq_mask: NonNegativeInt = 30
    time_mask: NonNegativeInt = 48
    patchout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    adjust_positions: bool = True
    freeze_patch_embed: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    cache_gb: NonNegativeFloat = 2.0
    checkpoint_dir: Path | None = None
    save_dir: Path | None = None

    def __post_init__(self) -> None:
        """RecipeError if two options do not fit together."""
        if self.warmup_epochs >= self.epochs:
            raise RecipeError(
                f"{self.name}: warmup_epochs must be less than epochs ({self.epochs}), but is {self.warmup_epochs}"
            )
        if self.batch_size < 2 * self.accumulate:
            raise RecipeError(
                f"{self.name}: batch_size must be 2 x accumulate or more, since batch norm needs two clips, but is "
                f"{self.batch_size} with accumulate {self.accumulate}"
            )
        if self.weight_decay is None:
            self.weight_decay = WEIGHT_DECAY[self.optimizer]

    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """One score, over folds and seeds.

        Raises RecipeError if a training part has only one clip, TrainingError for a loss that is not finite.
        """
        whole = isinstance(encoder, AudioEncoder)
        examples = (
            AudioExamples(encoder, task, self)
            if isinstance(encoder, AudioEncoder)
            else FeatureExamples(encoder, task)
        )
        identity = self._identity(encoder, task) if self.checkpoint_dir or self.save_dir else ""
        outcomes = [
            [self._outcome(Run(self, encoder, task, examples, fold, seed), identity) for seed in seeds]
            for fold in task.folds
        ]

        def each(name: str) -> list[list[Any]]:
            return [[getattr(outcome, name) for outcome in row] for row in outcomes]

        details = {
            **self._settings(),
            "trained": "whole network" if whole else "linear layer",
            "tested_epoch": "best on validation" if _has_valid(task) else "last",
            "tested_epochs": each("epoch"),
            "validation_scores": each("valid"),
            **({"saved": each("saved")} if self.save_dir else {}),
        }
        score = summarise(task, each("score"), protocol=self.name, details=details)
        return [score if whole else replace(score, metric=score.metric + LINEAR_ONLY)]

    def network(self, encoder: ClipEncoder, num_classes: int) -> nn.Module:
        """The network to train, with random weights from torch's generator."""
        if not isinstance(encoder, AudioEncoder):
            return Head(encoder.embed_dim, num_classes)
        network = FinetunedNetwork(
            encoder, num_classes, patchout=self.patchout, adjust_positions=self.adjust_positions
        )
        network.encoder.encoder.patch_embed.requires_grad_(not self.freeze_patch_embed)
        return network

    def _outcome(self, run: Run, identity: str) -> Outcome:
        task, fold, seed = run.task, run.fold, run.seed
        digest = sha256(json.dumps([identity, task.name, fold.name, seed]).encode()).hexdigest()
        name = re.sub(r"[^\w.-]+", "_", f"{task.name}-{fold.name}-seed{seed}-{digest[:16]}")
        checkpoint = None if self.checkpoint_dir is None else self.checkpoint_dir / f"{name}.pt"
        if self.save_dir is None or not isinstance(run.network, FinetunedNetwork):
            return run.finish(checkpoint)
        about = {"fold": fold.name, "seed": seed, "settings": self._settings()}
        return run.finish(checkpoint, NetworkFolder(self.save_dir / name, task, about))

    def _settings(self) -> dict[str, object]:
        """The options that a result depends on."""
        others = ("cache_gb", "checkpoint_dir", "save_dir")
        return {name: value for name, value in vars(self).items() if name not in others}

    def _identity(self, encoder: ClipEncoder, task: EvaluationTask) -> str:
        """A digest of everything that decides a run's result, except the fold and the seed; of the versions, too."""
        versions = package_version(), package_version("m2dx-finetune")
        clips = [[clip.labels, clip.split, clip.weight] for clip in task.clips]
        folds = [[part.tolist() for part in _parts(task, fold)] for fold in task.folds]
        return digest_of_features(encoder, task, versions, self._settings(), clips, task.label_names, folds)


def _has_valid(task: EvaluationTask) -> bool:
    """Whether the task has its own validation split; otherwise m2dx holds clips out, or takes a fold."""
    return len(task.folds) == 1 and any(clip.split == "valid" for clip in task.clips)


def _parts(task: EvaluationTask, fold: Fold) -> tuple[NDArray[np.int64], ...]:
    """Rows for training, validation (none if the task has no such split) and test."""
    if _has_valid(task):
        return fold.train, fold.valid, fold.test
    return fold.fitted, np.empty(0, dtype=np.int64), fold.test


class FeatureExamples:
    """Frozen clip features (B, D), for encoders without a network; without augmentation."""

    def __init__(self, encoder: ClipEncoder, task: EvaluationTask) -> None:
        device = device_of(encoder)
        self.x = task.features(encoder).x.to(device)
        self.targets = torch.from_numpy(task.targets()).to(device)

    def training(
        self, batches: Sequence[Tensor], random: Sequence[StepRandom]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets (B, C) of each batch of rows, on the encoder's device."""
        return ((self.x[rows], self.targets[rows]) for rows in batches)

    def plain(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Inputs of each batch of rows."""
        return (self.x[rows] for rows in batches)


class AudioExamples:
    """Standardised log-mels (B, 1, M, L) of `unit_seconds`; longer clips are cropped, at random for training.

    Tests take the start of a longer clip, as the other protocols do. Shorter clips are filled as the task says.
    Waveforms that are always the same stay in memory, up to `cache_gb`; that changes no result. Raises AudioError if a
    file has become unreadable.
    """

    def __init__(self, encoder: AudioEncoder, task: EvaluationTask, options: Finetune) -> None:
        self.encoder, self.task, self.options = encoder, task, options
        self.device = device_of(encoder)
        assert task.unit_seconds is not None  # `needs_wav`
        self.unit_seconds = task.unit_seconds
        self.num_samples = max(1, round(task.unit_seconds * encoder.sample_rate))
        self.targets = torch.from_numpy(task.targets())
        self._cache: dict[int, NDArray[np.float32]] = {}
        self._most_cached = int(options.cache_gb * 1e9) // (4 * self.num_samples)

    def training(
        self, batches: Sequence[Tensor], random: Sequence[StepRandom]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented inputs and soft targets (B, C) of each batch of rows."""
        options = self.options
        positions = [draws.crop.random(len(rows)) for rows, draws in zip(batches, random, strict=True)]
        for rows, draws, wav in zip(batches, random, self._wavs(batches, positions), strict=True):
            targets = self.targets[rows].to(self.device)
            if options.mixup:
                wav, targets = mixup(wav, targets, alpha=options.mixup, random=draws.mixup)
            logmel = self._logmel(wav)
            if options.freq_mask or options.time_mask:
                logmel = mask_stripes(
                    logmel, mels=options.freq_mask, frames=options.time_mask, random=draws.masks
                )
            if options.random_resize_crop:
                logmel = random_resize_crop(logmel, random=draws.resize)
            yield logmel, targets

    def plain(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Inputs of each batch of rows, without augmentation."""
        for wav in self._wavs(batches, [np.zeros(len(rows)) for rows in batches]):
            yield self._logmel(wav)

    @torch.no_grad()
    def _logmel(self, wav: Tensor) -> Tensor:
        return self.encoder.standard_logmel(wav)

    def _wavs(self, batches: Sequence[Tensor], positions: Sequence[NDArray[np.float64]]) -> Iterator[Tensor]:
        """Waveforms (B, N) of each batch; the next batch is read while the caller works on this one."""
        pairs = (
            list(zip(rows.tolist(), places.tolist(), strict=True))
            for rows, places in zip(batches, positions, strict=True)
        )
        for wav in read_ahead(pairs, lambda pair: torch.from_numpy(self._read(*pair))):
            yield wav.to(self.device)

    def _read(self, row: int, position: float) -> NDArray[np.float32]:
        clip = self.task.clips[row]
        longer = clip.duration is None or clip.duration > self.unit_seconds
        fixed = position == 0.0 or not longer
        if fixed and row in self._cache:
            return self._cache[row]
        try:
            reader = AudioCrops(self.num_samples, self.encoder.sample_rate, self.task.short_clips)
            wav = float_samples(reader.read_at(clip, position if longer else 0.0)[1])
        except AudioError as error:
            raise AudioError(f"{clip.path}: {error}") from error
        if fixed and len(self._cache) < self._most_cached:
            self._cache[row] = wav
        return wav


@dataclass(frozen=True)
class Outcome:
    """The test of one run."""

    score: float
    epoch: int  # the tested one, from 1
    valid: float | None = None  # score of that epoch on the validation part; None: there is no such part
    saved: str | None = None  # folder of the network; None: it was not kept


class Run:
    """The training of a network for one fold and seed. All randomness follows from the seed, the epoch and the step."""

    def __init__(
        self,
        options: Finetune,
        encoder: ClipEncoder,
        task: EvaluationTask,
        examples: AudioExamples | FeatureExamples,
        fold: Fold,
        seed: int,
    ) -> None:
        self.options, self.task, self.examples, self.fold, self.seed = options, task, examples, fold, seed
        self.device, self.y = device_of(encoder), targets_of(task)
        self.what = f"{options.name}, {task.name}, {fold.name}, seed {seed}"
        self.train, self.valid, self.test = map(torch.from_numpy, _parts(task, fold))  # rows
        if len(self.train) < 2:
            raise RecipeError(
                f"{options.name}: the training part {fold.name!r} of evaluation task {task.name!r} must have two "
                f"clips or more, but has {len(self.train)}"
            )
        with own_random(self.device, seed, 0):
            self.network = options.network(encoder, len(task.label_names)).to(self.device)
        self.optimizer = make_optimizer(
            options.optimizer, self.network.parameters(), weight_decay=options.weight_decay or 0.0
        )
        self.epoch = 0  # done
        self.best: tuple[float, int, dict[str, Tensor]] | None = None  # score, epoch and weights
        self.epoch_size = options.epoch_size or len(self.train)
        self.batch_size = min(options.batch_size, self.epoch_size)
        self.steps_per_epoch = self.epoch_size // self.batch_size

    def finish(self, checkpoint: Path | None = None, folder: NetworkFolder | None = None) -> Outcome:
        """Trains the remaining epochs and tests; resumes from the checkpoint if it exists, and writes it each epoch.

        The tested network goes into `folder`; a finished run that lacks this folder is trained once more. Raises
        TrainingError for a loss that is not finite, CheckpointError for a file that cannot be read or written.
        """
        state = {} if checkpoint is None or not checkpoint.exists() else _read(checkpoint)
        if "outcome" in state:
            if folder is None or folder.is_whole:
                return Outcome(**state["outcome"])
            logger.warning("%s has ended, but %s is not there: training once more", self.what, folder.path)
        elif state:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.best = state["epoch"], state["best"]
            logger.info("%s goes on after epoch %d of %s", self.what, self.epoch, checkpoint)
        while self.epoch < self.options.epochs:
            self.train_epoch()
            if checkpoint is not None:
                state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
                write_atomically(checkpoint, {"epoch": self.epoch, "best": self.best, **state})
        if self.best is not None:
            self.network.load_state_dict(self.best[2])
        valid, epoch = (None, self.epoch) if self.best is None else self.best[:2]
        outcome = Outcome(self.score(self.test), epoch, valid)
        if folder is not None:
            assert isinstance(self.network, FinetunedNetwork)
            folder.write(self.network, {"score": outcome.score, "epoch": epoch})
            outcome = replace(outcome, saved=str(folder.path))
        if checkpoint is not None:
            write_atomically(checkpoint, {"outcome": asdict(outcome)})
        return outcome

    def train_epoch(self) -> None:
        """Trains an epoch, and scores it on the validation part, if there is one."""
        weights = None  # without an epoch size, each clip once
        if self.options.epoch_size is not None:
            chances = [self.task.clips[row].weight for row in self.train.tolist()]
            weights = torch.tensor(chances, dtype=torch.float64)
        order = epoch_order(
            len(self.train), self.epoch_size, seed=self.seed, epoch=self.epoch, weights=weights
        )
        batches = self.train[order[: self.steps_per_epoch * self.batch_size]].split(self.batch_size)
        random = [StepRandom.of(self.seed, epoch=self.epoch, step=step) for step in range(len(batches))]
        total = torch.zeros((), device=self.device)
        self.network.train()
        with own_random(self.device, self.seed, 1 + self.epoch), torch.enable_grad():
            for step, (inputs, targets) in enumerate(self.examples.training(batches, random)):
                total += self._step(step, inputs, targets, random[step].patchout)
        self.epoch += 1
        loss = float(total) / self.steps_per_epoch
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.what}: the loss must be finite, but is {loss} in epoch {self.epoch}; lower `lr`"
            )
        logger.info("%s: epoch %d/%d: loss %.4f", self.what, self.epoch, self.options.epochs, loss)
        if len(self.valid):
            score = self.score(self.valid)
            logger.info("%s: epoch %d: validation score %.4f", self.what, self.epoch, score)
            if self.best is None or score > self.best[0]:
                self.best = (score, self.epoch, copy.deepcopy(self.network.state_dict()))

    def _step(self, step: int, inputs: Tensor, targets: Tensor, random: np.random.Generator) -> Tensor:
        """One optimizer step; returns the loss of the batch. Batch norm sees one micro-batch at a time."""
        lr = learning_rate(
            self.epoch * self.steps_per_epoch + step,
            peak=self.options.lr,
            warmup_steps=self.options.warmup_epochs * self.steps_per_epoch,
            total_steps=self.options.epochs * self.steps_per_epoch,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        pieces = min(self.options.accumulate, max(1, len(inputs) // 2))  # batch norm needs two clips
        options: dict[str, Any] = {}
        if self.options.patchout and isinstance(self.network, FinetunedNetwork):
            options["kept"] = partial(structured_patchout, ratio=self.options.patchout, random=random)
        loss = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        for some, wanted in zip(inputs.tensor_split(pieces), targets.tensor_split(pieces), strict=True):
            with autocast(self.options.precision, self.device):
                logits = self.network(some, **options)
            share = classification_loss(logits, wanted, multi_label=self.task.multi_label) * (
                len(some) / len(inputs)
            )
            share.backward()
            loss += share.detach()
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def score(self, rows: Tensor) -> float:
        """Accuracy, or mAP, on these clips."""
        self.network.eval()
        logits = []
        for inputs in self.examples.plain(rows.split(self.options.batch_size // self.options.accumulate)):
            with autocast(self.options.precision, self.device):
                logits.append(self.network(inputs).float().cpu())
        return score_of(torch.cat(logits).numpy(), self.y[rows])


@contextmanager
def own_random(device: torch.device, *numbers: int) -> Iterator[None]:
    """Seeds torch's generators with the numbers inside the context, and restores them afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
        yield


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_checked(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove it to start this fine-tuning again") from error


def make_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], *, weight_decay: float
) -> torch.optim.Optimizer:
    """SGD and LARS with momentum 0.9, AdamW with betas 0.9 and 0.95 and AMSGrad, for the parameters with gradients.

    timm's LARS scales the step of a tensor (You et al., 2017) only with weight decay. Without weight decay, as in the
    published code, it is SGD with momentum.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(trained, lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)
    if name == "lars":
        from timm.optim.lars import Lars  # here, since timm's import takes over a second

        return Lars(trained, lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)
    return torch.optim.AdamW(trained, lr=0.0, betas=BETAS, weight_decay=weight_decay, amsgrad=True)


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up from 0, then what is left of half a cosine from the peak at step 0 to 0; steps count from 0."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * 0.5 * (1.0 + math.cos(math.pi * step / total_steps))


def classification_loss(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    """Mean over clips and classes of (binary) cross entropy, from logits and soft targets (B, C).

    With one label per clip this is 1/C of the usual cross entropy, as in the published code. The learning rates of SGD
    in table II are meant for this loss.
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets)
    return -(targets * logits.log_softmax(dim=1)).mean()
