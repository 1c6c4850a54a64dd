"""Batches of a task's clips: read, cropped, mixed, turned into log-mels and augmented; or frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2dx.contract.components import ClipEncoder, EvaluationTask
from m2dx.contract.errors import AudioError
from m2dx.data.crops import read_crop
from m2dx.encoder.audio import AudioEncoder
from m2dx.evaluation.features import device_of, read_ahead
from m2dx.evaluation.finetuning.augmentation import Augmentation, StepRandom, mixup


class Examples(Protocol):
    """Batches of a task's clips by their rows, on the device of the network."""

    def training(
        self, batches: Sequence[Tensor], random: Sequence[StepRandom]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and soft targets (B, C) of each batch of rows."""
        ...

    def plain(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Inputs of each batch of rows, without anything random."""
        ...


class FeatureExamples:
    """Frozen clip features (B, D), for encoders that have nothing else. They are not augmented."""

    def __init__(self, encoder: ClipEncoder, task: EvaluationTask) -> None:
        device = device_of(encoder)
        self.x = task.features(encoder).x.to(device)
        self.targets = torch.from_numpy(task.targets()).to(device)

    def training(
        self, batches: Sequence[Tensor], random: Sequence[StepRandom]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in batches:
            yield self.x[rows], self.targets[rows]

    def plain(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        for rows in batches:
            yield self.x[rows]


class AudioExamples:
    """Standardised log-mels (B, 1, M, L) of `unit_seconds`: longer clips are cropped, at random for training.

    For tests a longer clip is cut to its beginning, as in the other protocols. Shorter ones are filled as the task
    says. Waveforms that are always the same stay in memory, up to `cache_gb`; that changes no result. Raises
    AudioError where a file became unreadable.
    """

    def __init__(
        self, encoder: AudioEncoder, task: EvaluationTask, augmentation: Augmentation, *, cache_gb: float
    ) -> None:
        self.encoder, self.task, self.augmentation = encoder, task, augmentation
        self.device = device_of(encoder)
        self.num_samples = max(1, round(task.unit_seconds * encoder.sample_rate))
        self.targets = torch.from_numpy(task.targets())
        self._cache: dict[int, NDArray[np.float32]] = {}
        self._most_cached = int(cache_gb * 1e9) // (4 * self.num_samples)

    def training(
        self, batches: Sequence[Tensor], random: Sequence[StepRandom]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        positions = [draws.crop.random(len(rows)) for rows, draws in zip(batches, random, strict=True)]
        for rows, draws, wav in zip(batches, random, self._wavs(batches, positions), strict=True):
            targets = self.targets[rows].to(self.device)
            if self.augmentation.mixup:
                wav, targets = mixup(wav, targets, alpha=self.augmentation.mixup, random=draws.mixup)
            yield self.augmentation.of_logmel(self._logmel(wav), draws), targets

    def plain(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        for wav in self._wavs(batches, [np.zeros(len(rows)) for rows in batches]):
            yield self._logmel(wav)

    @torch.no_grad()
    def _logmel(self, wav: Tensor) -> Tensor:
        return self.encoder.standard_logmel(wav)

    def _wavs(self, batches: Sequence[Tensor], positions: Sequence[NDArray[np.float64]]) -> Iterator[Tensor]:
        """Waveforms (B, N) of each batch; the next one is read while the caller works on the last."""
        pairs = (
            list(zip(rows.tolist(), places.tolist(), strict=True))
            for rows, places in zip(batches, positions, strict=True)
        )
        for wav in read_ahead(pairs, lambda pair: torch.from_numpy(self._read(*pair))):
            yield wav.to(self.device)

    def _read(self, row: int, position: float) -> NDArray[np.float32]:
        clip = self.task.clips[row]
        longer = clip.duration is None or clip.duration > self.task.unit_seconds
        fixed = position == 0.0 or not longer
        if fixed and row in self._cache:
            return self._cache[row]
        try:
            _, wav = read_crop(
                clip,
                crop_samples=self.num_samples,
                sample_rate=self.encoder.sample_rate,
                short_clips=self.task.short_clips,
                position=position if longer else 0.0,
            )
        except AudioError as error:
            raise AudioError(f"{clip.path}: {error}") from error
        if fixed and len(self._cache) < self._most_cached:
            self._cache[row] = wav
        return wav
