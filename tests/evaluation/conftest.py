"""Small labelled tasks of tones, and an encoder that tells them apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from m2dx.contract.components import Clip, Dataset

RATE = 8000


class ListDataset(Dataset):
    """Clips that a test gives."""

    name = "list"

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.given = list(clips)

    def clips(self, split: str | None = None) -> list[Clip]:
        return [clip for clip in self.given if split in (None, clip.split)]


class SpectrumEncoder(nn.Module):
    """Mean power in a few bands: tones of different bands are linearly separable."""

    def __init__(self, *, bands: int = 3) -> None:
        super().__init__()
        self.sample_rate, self.embed_dim, self.frame_rate = RATE, bands, 1.0
        self.calls = 0
        self.seen: list[Tensor] = []

    def clip(self, wav: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(wav)
        power = torch.fft.rfft(wav).abs().square()[:, 1:]  # (B, N // 2)
        return torch.stack([part.mean(1) for part in power.chunk(self.embed_dim, dim=1)], 1).add(1e-3).log()


@pytest.fixture
def spectrum_encoder() -> SpectrumEncoder:
    return SpectrumEncoder()


@pytest.fixture
def list_dataset() -> type[ListDataset]:
    return ListDataset


@pytest.fixture
def tone(tmp_path: Path) -> Callable[..., Clip]:
    """Writes a noisy tone (or chord) for each label "low", "mid" or "high", and gives its clip."""
    frequencies = {"low": 300.0, "mid": 2000.0, "high": 3300.0}
    count = iter(range(10_000))

    def make(*labels: str, seconds: float = 0.1, **fields: object) -> Clip:
        number = next(count)
        time = np.arange(round(seconds * RATE)) / RATE
        wav = np.random.default_rng(number).normal(scale=0.02, size=len(time))
        for label in labels:
            wav += 0.2 * np.sin(2 * np.pi * frequencies[label] * (1 + 0.01 * (number % 5)) * time)
        path = tmp_path / f"{number:04d}.wav"
        soundfile.write(path, wav, RATE)
        return replace(Clip(path, labels=labels), **fields)  # type: ignore[arg-type]

    return make
