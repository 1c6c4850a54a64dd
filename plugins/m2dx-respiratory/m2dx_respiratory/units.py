"""Cycles brought to one length: longer ones are cut, shorter ones are repeated in a circle, with fades."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import m2dx
from m2dx.evaluation.features import device_of, read_ahead

BATCH_SIZE = 32


def circular(wav: NDArray[np.float32], num_samples: int, *, fade_samples: int) -> NDArray[np.float32]:
    """(num_samples,) samples of a cycle (N,): its beginning, or copies of it one after the other, the last one cut.

    Both ends fade linearly over `fade_samples` (at most half of the cycle), and so do the ends of each copy, so that
    joints do not click. The fine-tuning code that M2D-X, IV-E, took over does the same, but for the end of cycles that
    are cut.
    """
    cycle = _faded(wav[:num_samples], fade_samples)
    copies = -(-num_samples // len(cycle))  # rounded up
    if copies == 1:
        return cycle
    return _faded(np.tile(cycle, copies)[:num_samples], fade_samples, start=False)


def _faded(wav: NDArray[np.float32], fade_samples: int, *, start: bool = True) -> NDArray[np.float32]:
    length = min(fade_samples, len(wav) // 2)
    ramp = np.arange(length, dtype=np.float32) / max(length, 1)  # from 0
    gain = np.ones(len(wav), dtype=np.float32)
    if start:
        gain[:length] = ramp
    gain[len(wav) - length :] = ramp[::-1]
    return wav * gain


def unit_batches(task: m2dx.EvaluationTask, *, sample_rate: int, fade_seconds: float) -> Iterator[Tensor]:
    """Batches (B, N) of a task's clips in their order, each brought to `unit_seconds`.

    Raises AudioError where a file became unreadable.
    """
    seconds = task.unit_seconds
    assert seconds is not None  # of audio
    num_samples = max(1, round(seconds * sample_rate))
    fade_samples = round(fade_seconds * sample_rate)

    def read(clip: m2dx.Clip) -> Tensor:
        duration = min(clip.duration or seconds, seconds)
        try:
            wav = m2dx.read_wav(clip.path, start=clip.start, duration=duration, sample_rate=sample_rate)
        except m2dx.AudioError as error:
            raise m2dx.AudioError(f"{clip.path}: {error}") from error
        return torch.from_numpy(circular(wav, num_samples, fade_samples=fade_samples))

    starts = range(0, len(task.clips), BATCH_SIZE)
    return read_ahead((task.clips[first : first + BATCH_SIZE] for first in starts), read)


@torch.no_grad()
def logmel_units(encoder: m2dx.AudioEncoder, task: m2dx.EvaluationTask, *, fade_seconds: float) -> Tensor:
    """Standardised log-mels (n, 1, M, L) of all clips, in float16 on the CPU, as the encoder wants them.

    They are computed once, since nothing before them is trained: 0.9 GB for the 6898 cycles of ICBHI 2017 at 8 s, 16
    kHz and 80 mels, half of what float32 takes. The rounding is below 0.002 standard deviations.
    """
    device = device_of(encoder)
    batches = unit_batches(task, sample_rate=encoder.sample_rate, fade_seconds=fade_seconds)
    return _joined((encoder.standard_logmel(wav.to(device)).half().cpu() for wav in batches), len(task.clips))


@torch.no_grad()
def feature_units(encoder: m2dx.ClipEncoder, task: m2dx.EvaluationTask, *, fade_seconds: float) -> Tensor:
    """Clip features (n, D) of all clips, in float32 on the CPU."""
    device = device_of(encoder)
    batches = unit_batches(task, sample_rate=encoder.sample_rate, fade_seconds=fade_seconds)
    return _joined((encoder.clip(wav.to(device)).float().cpu() for wav in batches), len(task.clips))


def _joined(batches: Iterator[Tensor], number: int) -> Tensor:
    """All rows of the batches in one tensor, without a second copy of them on the way."""
    joined, filled = torch.empty(0), 0
    for batch in batches:
        if not filled:
            joined = batch.new_empty((number, *batch.shape[1:]))
        joined[filled : filled + len(batch)] = batch
        filled += len(batch)
    return joined
