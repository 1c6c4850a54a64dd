"""Trains a classifier, with or without the encoder before it, and tests it after each epoch."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import m2dx
from m2dx.model.precision import autocast
from m2dx_respiratory.confusion import RespiratoryScores, confusion_matrix

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
Schedule = Literal["constant", "cosine"]
MASK_STRIPES = 2
"""Masks of each kind on one log-mel."""
LAYER, ORDER, MASKS, DROPOUT = range(4)
"""What is random in a run. Each has random numbers of its own, so that none changes with another's settings."""


@dataclass(frozen=True)
class FitSettings:
    """How a classifier is trained; see `IcbhiEvaluator`."""

    epochs: int
    batch_size: int
    accumulate: int
    learning_rate: float
    schedule: Schedule
    weight_decay: float
    precision: Precision
    class_weights: bool = True
    mel_mask: int = 0
    time_mask: int = 0


@dataclass(frozen=True, eq=False)
class FitData:
    """What one run trains and tests on."""

    inputs: Tensor  # (n, 1, M, L) log-mels or (n, D) features of all clips of the task, on the CPU
    y: Tensor  # (n,) class numbers
    train: Tensor  # rows
    test: Tensor  # rows
    num_classes: int
    normal: int  # the class that specificity is about

    def class_weights(self) -> Tensor:
        """(C,) weights inversely proportional to the training cycles of each class; 0 for a class without any."""
        counts = torch.bincount(self.y[self.train], minlength=self.num_classes).float()
        present = counts > 0
        return torch.where(present, counts.sum() / (present.sum() * counts.clamp_min(1)), 0.0)


class FinetunedClassifier(nn.Module):
    """A trainable copy of an encoder, the mean of its frames over time, and a linear layer: (B, 1, M, L) -> (B, C).

    There is no batch norm in between, as in the fine-tuning code that M2D-X, IV-E, took over (files that the authors
    published for other tasks have one): without statistics of the batch, accumulation does not change the gradient.
    """

    def __init__(self, encoder: m2dx.AudioEncoder, num_classes: int, *, freeze_patch_embed: bool) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self.encoder.encoder.patch_embed.requires_grad_(not freeze_patch_embed)
        self.linear = nn.Linear(encoder.embed_dim, num_classes)

    def forward(self, logmel: Tensor) -> Tensor:
        frames = self.encoder.encode_logmel(logmel)[-1]  # (B, T, D)
        logits: Tensor = self.linear(frames.mean(dim=1))  # (B, T, D) -> (B, D) -> (B, C)
        return logits


class LinearClassifier(nn.Module):
    """A linear layer on features that are standardised over the training clips: (B, D) -> (B, C)."""

    mean: Tensor
    std: Tensor

    def __init__(self, training_features: Tensor, num_classes: int) -> None:
        super().__init__()
        statistics = m2dx.Standardiser.fit(training_features)
        self.register_buffer("mean", statistics.mean)
        self.register_buffer("std", statistics.std)
        self.linear = nn.Linear(training_features.shape[1], num_classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(m2dx.Standardiser(self.mean, self.std)(features))
        return logits


@dataclass(frozen=True, eq=False)
class EpochResult:
    """The test of one epoch."""

    confusion: Tensor  # (C, C) counts
    scores: RespiratoryScores


def fit(
    build: Callable[[], nn.Module],
    data: FitData,
    settings: FitSettings,
    *,
    device: torch.device,
    seed: int,
    what: str,
) -> list[EpochResult]:
    """The test of each epoch of one run; the seed sets the linear layer, the order, masks, and dropout if there is any.

    `build` makes the model. `what` names the run in the log. Raises TrainingError for a loss that is not finite.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(_seed_of(LAYER, seed))
        model = build().to(device)
        torch.manual_seed(_seed_of(DROPOUT, seed))
        run = _Run(model, data, settings, seed)
        results = []
        for epoch in range(settings.epochs):
            loss = run.train_epoch(epoch)
            if not math.isfinite(loss):
                raise m2dx.TrainingError(
                    f"{what}: the loss must be finite, but is {loss} in epoch {epoch + 1}; lower the learning rate"
                )
            results.append(run.test())
            done = f"epoch {epoch + 1}/{settings.epochs}: loss {loss:.4f}"
            logger.info("%s: %s, %s", what, done, results[-1].scores)
        return results


def best_epoch(results: Sequence[EpochResult]) -> int:
    """The number, from 0, of the first epoch with the highest Score on the test part."""
    return max(range(len(results)), key=lambda number: results[number].scores.score)


def mask_stripes(logmel: Tensor, *, mels: int, frames: int, generator: torch.Generator) -> Tensor:
    """A copy of standardised log-mels (B, 1, M, L) with stripes of up to `mels` bands and `frames` frames hidden.

    Two stripes of each kind per log-mel (SpecAugment), set to its lowest value, as silence would be. All randomness
    comes from the generator, on the CPU.
    """
    hidden = torch.zeros(logmel.shape, dtype=torch.bool)
    for axis, longest in ((2, mels), (3, frames)):
        size = logmel.shape[axis]
        shape = (MASK_STRIPES, len(logmel), 1, 1, 1)
        width = torch.rand(shape, generator=generator) * min(longest, size)
        first = torch.rand(shape, generator=generator) * (size - width)
        places = torch.arange(size).view([-1 if number == axis else 1 for number in range(4)])
        hidden |= ((places >= first.floor()) & (places < (first + width).floor())).any(0)
    return torch.where(hidden.to(logmel.device), logmel.amin(dim=(1, 2, 3), keepdim=True), logmel)


def _seed_of(purpose: int, seed: int) -> int:
    """The seed of one purpose, which has nothing to do with those of others."""
    return int(np.random.SeedSequence((purpose, seed)).generate_state(1, np.uint64)[0])


class _Run:
    def __init__(self, model: nn.Module, data: FitData, settings: FitSettings, seed: int) -> None:
        self.model, self.data, self.settings = model, data, settings
        self.of_order, self.of_masks = (
            torch.Generator().manual_seed(_seed_of(purpose, seed)) for purpose in (ORDER, MASKS)
        )
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = trained[0].device
        self.optimizer = torch.optim.Adam(
            trained, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        weights = data.class_weights() if settings.class_weights else torch.ones(data.num_classes)
        self.weights = weights.to(self.device)

    def train_epoch(self, epoch: int) -> float:
        """The mean loss of an epoch, numbered from 0."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(epoch)
        order = self.data.train[torch.randperm(len(self.data.train), generator=self.of_order)]
        losses = [self._step(rows) * len(rows) for rows in order.split(self.settings.batch_size)]
        return sum(losses) / len(order)

    def _step(self, rows: Tensor) -> float:
        """One optimizer step. Each piece's loss is divided by the weights of the whole batch, as if it were one."""
        settings = self.settings
        inputs, y = self._inputs(rows), self.data.y[rows].to(self.device)
        if settings.mel_mask or settings.time_mask:
            inputs = mask_stripes(
                inputs, mels=settings.mel_mask, frames=settings.time_mask, generator=self.of_masks
            )
        total = self.weights[y].sum()
        piece = -(-len(rows) // settings.accumulate)  # rounded up
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        for some, labels in zip(inputs.split(piece), y.split(piece), strict=True):
            with autocast(settings.precision, self.device):
                logits = self.model(some)
            share = F.cross_entropy(logits.float(), labels, weight=self.weights, reduction="sum") / total
            share.backward()
            loss += share.detach()
        self.optimizer.step()
        return float(loss)

    @torch.no_grad()
    def test(self) -> EpochResult:
        """The confusion and the scores on the test part."""
        self.model.eval()
        predicted = []
        for rows in self.data.test.split(max(1, self.settings.batch_size // self.settings.accumulate)):
            with autocast(self.settings.precision, self.device):
                predicted.append(self.model(self._inputs(rows)).argmax(1).cpu())
        data = self.data
        confusion = confusion_matrix(data.y[data.test], torch.cat(predicted), data.num_classes)
        return EpochResult(confusion, RespiratoryScores.of(confusion, normal=data.normal))

    def _inputs(self, rows: Tensor) -> Tensor:
        return self.data.inputs[rows].to(self.device).float()

    def _learning_rate(self, epoch: int) -> float:
        settings = self.settings
        if settings.schedule == "constant":
            return settings.learning_rate
        return settings.learning_rate * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
