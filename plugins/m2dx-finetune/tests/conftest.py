"""A host with the evaluator, files of noise, and small labelled tasks of tones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import m2dx


@pytest.fixture(scope="module")
def host(make_host: Callable[[str], m2dx.PluginHost]) -> m2dx.PluginHost:
    return make_host("finetune")


@pytest.fixture
def make_wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a wav file of noise and gives its path."""

    def make(name: str, *, seconds: float, rate: int = 16_000) -> Path:
        path = tmp_path / name
        soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=round(seconds * rate)), rate)
        return path

    return make
