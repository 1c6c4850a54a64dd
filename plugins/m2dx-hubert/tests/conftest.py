"""Small stand-ins for the published models, so that the tests take seconds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from m2dx_hubert import HuBERT, architectures
from torch import Tensor

import m2dx
from m2dx.testing.samples import tone

MakeWav = Callable[..., Path]
"""From a name, seconds and a rate to a WAV file of a tone that beats."""


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """All models have three blocks, 32 dimensions and 8 channels in the convolutions."""
    small = {"embed_dim": 32, "num_layers": 3, "num_heads": 4, "hidden_dim": 48, "conv_channels": 8}
    for name, architecture in architectures.MODELS.items():
        monkeypatch.setitem(architectures.MODELS, name, replace(architecture, **small))  # type: ignore[arg-type]


@pytest.fixture
def wav_file(tmp_path: Path) -> MakeWav:
    def write(name: str, seconds: float, sample_rate: int = 16_000) -> Path:
        wav = tone(120.0, seconds=seconds, sample_rate=sample_rate, beat=4.0, seed=len(name))
        path = tmp_path / name
        soundfile.write(path, wav, sample_rate, subtype="FLOAT")
        return path

    return write


@pytest.fixture
def views() -> Callable[..., m2dx.Views]:
    """Views of (B, N) samples at 16 kHz, with the crops that they are from."""

    def make(wav: Tensor, *crops: m2dx.Crop) -> m2dx.Views:
        return m2dx.Views(m2dx.Waveforms(wav, 16_000), torch.zeros(len(wav), 1, 80, 100), crops=crops or None)

    return make


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make(tiny: None, cache: Path) -> Callable[..., HuBERT]:
    """Encoders with a cache, and with the same random weights each time."""

    def build(seed: int = 0, **options: Any) -> HuBERT:
        torch.manual_seed(seed)
        return HuBERT(**{"layer": 2, "weights": "random", "cache": cache, **options}).eval()

    return build
