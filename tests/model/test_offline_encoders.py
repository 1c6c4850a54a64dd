"""The core's training signals."""

import math

import pytest
import torch

from m2dx.contract.components import DataInfo, Views, Waveforms
from m2dx.contract.errors import RecipeError
from m2dx.model.offline_encoders import Labels, LogSpectrum

ONE = {"notes": ("bass", "flute")}
TWO = {**ONE, "drums": ("kick", "snare")}


def info(names: dict[str, tuple[str, ...]]) -> DataInfo:
    return DataInfo(16_000, 16_000, names)


def views(wav: torch.Tensor, **labels: torch.Tensor) -> Views:
    return Views(Waveforms(wav, 16_000), torch.zeros(len(wav), 1, 80, 100), labels)


def test_labels_of_the_only_labelled_set_or_the_named_one() -> None:
    given = views(torch.zeros(1, 8), notes=torch.tensor([[0.0, 1.0]]), drums=torch.tensor([[1.0, 0.0]]))
    only, named = Labels(info(ONE)), Labels(info(TWO), dataset="drums")
    assert only(given).tolist() == [[0.0, 1.0]] and only.embed_dim == 2 and only.num_frames(16_000) is None
    assert named(given).tolist() == [[1.0, 0.0]] and named.label_names == ("kick", "snare")


def test_labels_need_a_set_that_has_them() -> None:
    with pytest.raises(RecipeError, match=r"one data set must have labels.*found: drums, notes"):
        Labels(info(TWO))
    with pytest.raises(RecipeError, match="found: none"):
        Labels(info({}))
    with pytest.raises(RecipeError, match="must be a data set with labels \\(notes\\), but is 'noets'"):
        Labels(info(ONE), dataset="noets")


@pytest.mark.parametrize("samples", [5120, 16_000, 97_280, 97_285])
def test_log_spectrum_gives_the_frames_it_declares(samples: int) -> None:
    encoder = LogSpectrum()
    target = encoder(views(torch.randn(2, samples)))
    assert target.shape == (2, encoder.num_frames(samples), encoder.embed_dim) == (2, samples // 320, 257)


def test_log_spectrum_has_its_peak_at_the_tone() -> None:
    wav = torch.sin(torch.arange(16_000) * (2 * math.pi * 1000 / 16_000))[None]
    target = LogSpectrum(n_fft=512)(views(wav))
    assert (target[0, 1:-1].argmax(dim=1) == 32).all()  # 1000 Hz / (16000 / 512)
    assert target.min() >= math.log(1e-5) - 1e-5


def test_log_spectrum_of_silence_is_finite() -> None:
    assert LogSpectrum()(views(torch.zeros(1, 16_000))).isfinite().all()
