"""Mean and standard deviation of a task's log-mel spectrograms: measured once per task and data set, then read."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import m2dx

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Statistics:
    """Of all time-frequency bins of a task's training list, each with the same weight (M2D-X, IV-D)."""

    mean: float
    std: float
    clips: int
    seconds: float


def measured(
    wavs: Iterable[Tensor], encoder: m2dx.AudioEncoder, folder: Path, *, clips: int, what: str
) -> Statistics:
    """Statistics of waveforms (N,) of `clips` clips, read from `folder` where they were measured before.

    `what` names everything beside the log-mel settings that they depend on. Raises AudioError where there is no audio.
    """
    logmel = encoder.logmel
    settings = [logmel.sample_rate, logmel.n_fft, logmel.win_length, logmel.hop_length, logmel.n_mels]
    bands = [logmel.f_min, logmel.f_max]
    key = hashlib.sha256(json.dumps([settings, bands, clips, what]).encode()).hexdigest()[:16]
    path = folder / f"statistics-{key}.json"
    if path.is_file():
        statistics = Statistics(**json.loads(path.read_text(encoding="utf-8")))
        logger.info("statistics of %d clips read from %s", statistics.clips, path)
    else:
        logger.info("measuring mean and standard deviation of %d clips", clips)
        statistics = measure(wavs, encoder)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(statistics)) + "\n", encoding="utf-8")
    return statistics


def measure(wavs: Iterable[Tensor], encoder: m2dx.AudioEncoder) -> Statistics:
    """Statistics of the log-mel spectrograms of waveforms (N,). Raises AudioError where there is nothing to measure."""
    logmel = encoder.logmel
    device = next(encoder.parameters()).device
    clips = samples = count = 0
    total = squares = 0.0
    with torch.no_grad():
        for wav in wavs:
            frames = max(wav.shape[-1] // logmel.hop_length, 1)
            bins = logmel(wav.view(1, -1).to(device))[..., :frames].double()  # (1, 1, M, L)
            total, squares = total + bins.sum().item(), squares + bins.square().sum().item()
            clips, samples, count = clips + 1, samples + wav.shape[-1], count + bins.numel()
    if count == 0:
        raise m2dx.AudioError("the training list must have clips, but there are none to measure")
    mean = total / count
    variance = squares / count - mean**2
    if not variance > 0:
        raise m2dx.AudioError(
            f"the training list must have sound, but its {clips} clips have variance {variance}"
        )
    return Statistics(mean, math.sqrt(variance), clips, samples / logmel.sample_rate)
