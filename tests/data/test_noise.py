"""Noise: eq. (5) in dB, and the sources."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.data.csv_list import CsvDataset
from m2dx.data.noise import ClipNoise, ColouredNoise, mix_noise

SOUNDS = Path(__file__).parents[2] / "examples" / "sounds"
DB = 10 / math.log(10)  # dB of one unit of natural log power


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mix_is_equation_5() -> None:
    x, noise = torch.randn(2, 1, 80, 10, dtype=torch.float64), torch.randn(2, 1, 80, 10, dtype=torch.float64)
    mixed = mix_noise(x - 7.1, noise - 5.2, ratio=0.3, mean=-7.1, noise_mean=-5.2)
    torch.testing.assert_close(mixed, (0.7 * x.exp() + 0.3 * noise.exp()).log())


def test_ratios_0_and_1_are_exact() -> None:
    x, noise = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.equal(mix_noise(x, noise, ratio=0.0, mean=-7.1, noise_mean=-5.0), x + 7.1)
    assert torch.equal(mix_noise(x, noise, ratio=1.0, mean=-7.1, noise_mean=-5.0), noise + 5.0)


@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.3])
def test_levels_in_db(ratio: float) -> None:
    """Noise alone is 10 log10(ratio) below itself, and equal parts (after centring) stay at their level."""
    loud, silent = torch.tensor(3.0), torch.tensor(-60.0)

    def mix(x: torch.Tensor, noise: torch.Tensor) -> float:
        return mix_noise(x, noise, ratio=ratio, mean=-7.0, noise_mean=-4.0).item() * DB

    assert mix(loud, silent) == pytest.approx(10 * DB + 10 * math.log10(1 - ratio), abs=1e-4)
    assert mix(silent, loud) == pytest.approx(7 * DB + 10 * math.log10(ratio), abs=1e-4)
    assert mix(torch.tensor(-5.0), torch.tensor(-2.0)) == pytest.approx(2 * DB, abs=1e-4)


def test_mix_does_not_overflow() -> None:
    high, low = torch.tensor([200.0]), torch.tensor([-200.0])
    assert mix_noise(high, low, ratio=0.5, mean=0.0, noise_mean=0.0).item() == pytest.approx(
        199.307, abs=1e-3
    )
    assert mix_noise(low, low, ratio=0.5, mean=0.0, noise_mean=0.0).item() == pytest.approx(-200, abs=1e-3)


@pytest.mark.parametrize("level", [-60.0, -30.0, 0.0])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_has_its_level(exponent: float, level: float) -> None:
    noise = ColouredNoise(16_000, exponent=exponent, level_dbfs=level).draw(32_000, generator())
    assert noise.shape == (32_000,)
    assert noise.dtype == torch.float32
    assert 20 * noise.square().mean().sqrt().log10().item() == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize(("exponent", "db_per_octave"), [(0.0, 0.0), (1.0, -3.01), (2.0, -6.02)])
def test_coloured_noise_has_its_slope(exponent: float, db_per_octave: float) -> None:
    noise = ColouredNoise(16_000, exponent=exponent).draw(2**20, generator())
    power = torch.fft.rfft(noise.double()).abs().square()
    hertz = torch.fft.rfftfreq(len(noise), 1 / 16_000)
    octaves = [power[(hertz >= f) & (hertz < 2 * f)].mean().log10().item() * 10 for f in (50, 200, 800, 3200)]
    slopes = [(b - a) / 2 for a, b in itertools.pairwise(octaves)]
    assert slopes == pytest.approx([db_per_octave] * 3, abs=0.15)


def test_coloured_noise_has_no_dc_and_follows_the_generator() -> None:
    source = ColouredNoise(16_000, exponent=2.0)
    noise = source.draw(16_000, generator(1))
    assert noise.mean().item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(noise, source.draw(16_000, generator(1)))
    assert not torch.equal(noise, source.draw(16_000, generator(2)))
    assert source.draw(1, generator()).isfinite().all()


def test_noise_of_clips_is_drawn_from_the_generator_alone() -> None:
    source = ClipNoise(16_000, CsvDataset(path=SOUNDS / "noise.csv").clips())
    wav = source.draw(16_000, generator(1))
    assert wav.shape == (16_000,)
    assert torch.equal(wav, source.draw(16_000, generator(1)))
    assert not torch.equal(wav, source.draw(16_000, generator(2)))
    assert source.drain_bad() == []


def test_bad_files_are_drained_once(tmp_path: Path) -> None:
    good = SOUNDS / "sounds" / "music" / "000.ogg"
    source = ClipNoise(16_000, [Clip(good), Clip(tmp_path / "none.wav")])
    for seed in range(20):
        assert source.draw(1000, generator(seed)).shape == (1000,)
    bad = source.drain_bad()
    assert set(bad) == {(str(tmp_path / "none.wav"), "missing: no such file")}
    assert source.drain_bad() == []


def test_noise_without_clips() -> None:
    with pytest.raises(AudioError, match="noise needs clips"):
        ClipNoise(16_000, [])
