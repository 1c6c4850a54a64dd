"""A host with the evaluator, files of noise, and small labelled tasks of tones."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import m2dx

RATE = 8000


class ListDataset(m2dx.Dataset):
    """Clips that a test gives."""

    name = "list"

    def __init__(self, clips: Sequence[m2dx.Clip]) -> None:
        self.given = list(clips)

    def clips(self, split: str | None = None) -> list[m2dx.Clip]:
        return [clip for clip in self.given if split in (None, clip.split)]


@pytest.fixture(scope="module")
def host(make_host: Callable[[str], m2dx.PluginHost]) -> m2dx.PluginHost:
    return make_host("finetune")


@pytest.fixture
def list_dataset() -> type[ListDataset]:
    return ListDataset


@pytest.fixture
def tone(tmp_path: Path) -> Callable[..., m2dx.Clip]:
    """Writes a noisy tone (or chord) for each label "low", "mid" or "high", and gives its clip."""
    frequencies = {"low": 300.0, "mid": 2000.0, "high": 3300.0}
    count = iter(range(10_000))

    def make(*labels: str, seconds: float = 0.1, **fields: object) -> m2dx.Clip:
        number = next(count)
        time = np.arange(round(seconds * RATE)) / RATE
        wav = np.random.default_rng(number).normal(scale=0.02, size=len(time))
        for label in labels:
            wav += 0.2 * np.sin(2 * np.pi * frequencies[label] * (1 + 0.01 * (number % 5)) * time)
        path = tmp_path / f"{number:04d}.wav"
        soundfile.write(path, wav, RATE)
        return replace(m2dx.Clip(path, labels=labels), **fields)  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a wav file of noise and gives its path."""

    def make(name: str, *, seconds: float, rate: int = 16_000) -> Path:
        path = tmp_path / name
        soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=round(seconds * rate)), rate)
        return path

    return make
