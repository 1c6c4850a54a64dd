"""Resampling and mel filters against torchaudio's, which published features were made with."""

import pytest
import torch

from m2dx.data.logmel import LogMel
from m2dx.data.resampling import resample

RATES = [
    (16_000, 8_000),
    (8_000, 16_000),
    (32_000, 16_000),
    (44_100, 16_000),
    (16_000, 22_050),
    (48_000, 44_100),
]


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
@pytest.mark.parametrize("samples", [1, 7, 441, 10_007])
def test_resampled_audio_is_torchaudio_s(rate: int, new_rate: int, samples: int) -> None:
    torchaudio = pytest.importorskip("torchaudio")
    wav = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    found, expected = resample(wav, rate, new_rate), torchaudio.functional.resample(wav, rate, new_rate)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 32_000, 44_100])
@pytest.mark.parametrize(
    ("n_fft", "n_mels", "f_min", "f_max"),
    [(400, 80, 50.0, 1.0), (1024, 128, 0.0, 0.9), (256, 200, 20.0, 0.11)],
)
def test_filters_are_torchaudio_s(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> None:
    """`f_max` in parts of the Nyquist frequency; some filters are empty."""
    functional = pytest.importorskip("torchaudio").functional
    given = {"n_mels": n_mels, "f_min": f_min, "f_max": f_max * rate / 2, "sample_rate": rate}
    found = LogMel(n_fft=n_fft, win_length=n_fft, **given).filters
    expected = functional.melscale_fbanks(n_fft // 2 + 1, **given, norm="slaney", mel_scale="slaney")
    assert torch.equal(found, expected)


def test_a_tone_keeps_its_pitch_and_level() -> None:
    tone = torch.sin(torch.arange(44_100) * 2 * torch.pi * 1000 / 44_100)[None]
    found = resample(tone, 44_100, 16_000)
    assert found.shape == (1, 16_000) and torch.fft.rfft(found[0]).abs().argmax() == 1000
    assert found[0, 1000:-1000].square().mean().sqrt().item() == pytest.approx(0.5**0.5, rel=1e-3)
