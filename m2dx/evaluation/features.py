"""Frozen clip features of a task's clips, and their standardisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m2dx.contract.components import Clip, ClipEncoder, EvaluationTask, Features
from m2dx.contract.errors import AudioError, TrainingError
from m2dx.data.crops import fit_length
from m2dx.data.logmel import LogMel
from m2dx.data.reading import read_wav
from m2dx.model.precision import autocast
from m2dx.recipe.schema import AudioSection

READING_THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True)
class Standardiser:
    """Brings features to mean 0 and variance 1 over the training clips; constant features are only shifted."""

    mean: Tensor  # (D,)
    std: Tensor  # (D,)

    @classmethod
    def fit(cls, x: Tensor) -> Standardiser:
        """Statistics of training features (n, D)."""
        mean, std = x.mean(0), x.std(0, correction=0)
        constant = std <= 1e-6 * mean.abs().clamp_min(1e-6)  # below what float32 sums can tell from zero
        return cls(mean, torch.where(constant, torch.ones_like(std), std))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def device_of(encoder: ClipEncoder) -> torch.device:
    """Where an encoder's parameters or buffers are; the CPU if it has none."""
    if not isinstance(encoder, nn.Module):
        return torch.device("cpu")
    first = next(chain(encoder.parameters(), encoder.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def bytes_of(tensor: Tensor) -> bytes:
    """A tensor's values in their order, for a digest."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def extract(encoder: ClipEncoder, task: EvaluationTask, *, batch_size: int) -> Features:
    """Features of all clips of the task.

    Raises TrainingError where features are not finite, and what `task.batches` raises.
    """
    device = device_of(encoder)
    rows = []
    with torch.inference_mode(), autocast("fp32", device):
        for batch in task.batches(encoder, batch_size):
            rows.append(encoder.clip(batch.to(device)).float().cpu())
    x = torch.cat(rows).clone()  # (n, D); the clone leaves inference mode, so that autograd may use it
    if x.shape != (len(task.clips), encoder.embed_dim):
        raise TrainingError(
            f"an encoder must give one vector of embed_dim ({encoder.embed_dim}) per clip, "
            f"but gave {tuple(x.shape)} for {len(task.clips)} clips"
        )
    broken = (~x.isfinite().all(1)).nonzero().flatten()
    if len(broken):
        raise TrainingError(
            f"features of evaluation task {task.name!r} must be finite, but are not for {len(broken)} clips, "
            f"the first one {task.clips[int(broken[0])].path}"
        )
    return Features(x, targets_of(task))


def targets_of(task: EvaluationTask) -> Tensor:
    """Class numbers (n,) of the task's clips, or multi-hot targets (n, C) of a multi-label task."""
    targets = torch.from_numpy(task.targets())
    return targets if task.multi_label else targets.argmax(1)


def audio_batches(task: EvaluationTask, sample_rate: int, batch_size: int) -> Iterator[Tensor]:
    """Batches (B, N) of a task's clips in order, each brought to its `unit_seconds`.

    Longer clips are cut to their beginning, shorter ones are filled at the end. (The paper crops longer ones at random,
    M2D-X, IV-B; a fixed crop keeps features frozen and runs repeatable.) Raises AudioError where a file became
    unreadable.
    """
    num_samples = max(1, round(task.unit_seconds * sample_rate))

    def read(clip: Clip) -> Tensor:
        wav = _read_unit(clip, task.unit_seconds, sample_rate)
        return torch.from_numpy(fit_length(wav, num_samples, short_clips=task.short_clips))

    return read_ahead(in_batches(task.clips, batch_size), read)


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in their order, `size` at a time; the last batch may be smaller."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def read_ahead(batches: Iterable[Sequence[T]], read: Callable[[T], Tensor]) -> Iterator[Tensor]:
    """Stacks (B, ...) of what `read` gives for the items of each batch; the next is read while the caller works."""
    with ThreadPoolExecutor(READING_THREADS) as pool:
        waiting = ([pool.submit(read, item) for item in batch] for batch in batches)
        current = next(waiting, None)
        while current is not None:
            following = next(waiting, None)
            yield torch.stack([future.result() for future in current])
            current = following


def _read_unit(clip: Clip, unit_seconds: float, sample_rate: int) -> NDArray[np.float32]:
    duration = unit_seconds if clip.duration is None else min(clip.duration, unit_seconds)
    try:
        return read_wav(clip.path, start=clip.start, duration=duration, sample_rate=sample_rate)
    except AudioError as error:
        raise AudioError(f"{clip.path}: {error}") from error


class MeanLogMel(nn.Module):
    """Mean and standard deviation over time of the log-mel spectrogram, as clip features (B, 2 * M)."""

    def __init__(self, audio: AudioSection) -> None:
        super().__init__()
        self.sample_rate = audio.sample_rate
        self.frame_rate = audio.sample_rate / audio.hop_length
        self.embed_dim = 2 * audio.n_mels
        self.logmel = LogMel(**audio.model_dump(exclude={"crop_seconds"}))

    @torch.no_grad()
    def clip(self, wav: Tensor) -> Tensor:
        """Features (B, 2 * M), the means first, from wav (B, N)."""
        bands = self.logmel(wav)[:, 0]  # (B, 1, M, L) -> (B, M, L)
        return torch.cat([bands.mean(-1), bands.std(-1, correction=0)], dim=-1)
