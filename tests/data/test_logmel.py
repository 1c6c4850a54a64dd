"""Log-mel spectrograms: the published values, and any length."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from m2dx.data.logmel import LogMel

PARITY = Path(__file__).parents[1] / "data" / "parity" / "logmel.safetensors"
FLOOR = torch.finfo(torch.float32).eps


def published(sample_rate: int) -> LogMel:
    length = sample_rate // 40
    return LogMel(
        sample_rate=sample_rate,
        n_fft=length,
        win_length=length,
        hop_length=sample_rate // 100,
        n_mels=80,
        f_min=50.0,
        f_max=sample_rate / 2,
    )


@pytest.mark.parametrize(("sample_rate", "name"), [(16_000, "logmel_16k"), (32_000, "logmel_32k")])
def test_published_values(sample_rate: int, name: str) -> None:
    data = load_file(PARITY)
    logmel = published(sample_rate)(data["waveform"])
    torch.testing.assert_close(logmel[:, 0], data[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 2, 200, 201, 1600, 97_280])
def test_frames_of_any_length(samples: int) -> None:
    transform = published(16_000)
    logmel = transform(torch.randn(2, samples))
    assert logmel.shape == (2, 1, 80, transform.num_frames(samples))
    assert transform.crop(torch.randn(2, samples)).shape == (2, 1, 80, samples // 160)
    assert logmel.isfinite().all()


def test_the_whole_gives_one_frame_more_than_a_crop() -> None:
    transform, wav = published(16_000), torch.randn(1, 16_000)
    assert transform(wav).shape[-1] == 101
    assert torch.equal(transform.crop(wav), transform(wav)[..., :100])


def test_silence_is_the_floor() -> None:
    logmel = published(16_000)(torch.zeros(1, 1600))
    torch.testing.assert_close(logmel, torch.full_like(logmel, FLOOR).log())


def test_ten_times_the_amplitude_is_20_db() -> None:
    wav = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    louder, softer = published(16_000)(wav * 10), published(16_000)(wav)
    decibels = (louder - softer) * 10 / torch.log(torch.tensor(10.0))
    torch.testing.assert_close(decibels, torch.full_like(decibels, 20.0), atol=0.01, rtol=0)


def test_autocast_changes_nothing() -> None:
    transform, wav = published(16_000), torch.randn(1, 16_000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logmel = transform(wav)
    assert logmel.dtype == torch.float32
    assert torch.equal(logmel, transform(wav))


def test_it_has_no_state() -> None:
    assert published(16_000).state_dict() == {}
