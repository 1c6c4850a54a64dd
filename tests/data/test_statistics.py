"""Measured mean and standard deviation, against a direct computation on real sounds."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from m2dx.contract.components import Clip, NoiseSource
from m2dx.contract.errors import AudioError, PluginError
from m2dx.data.clips import ClipList, join_sets, pack_clips
from m2dx.data.crops import AudioCrops
from m2dx.data.csv_list import CsvDataset
from m2dx.data.logmel import LogMel
from m2dx.data.noise import ClipNoise, ColouredNoise
from m2dx.data.reading import read_wav
from m2dx.data.statistics import measure_audio, measure_noise

SOUNDS = Path(__file__).parents[2] / "examples" / "sounds"
RATE = 16_000
LOGMEL = LogMel(
    sample_rate=16_000, n_fft=400, win_length=400, hop_length=160, n_mels=80, f_min=50.0, f_max=8000.0
)


@pytest.fixture(scope="module")
def notes() -> ClipList:
    return join_sets({"notes": (CsvDataset(path=SOUNDS / "instrument.csv"), "valid")})


def test_statistics_of_whole_clips_are_those_of_the_data(notes: ClipList) -> None:
    """With a crop as long as the longest clip there is nothing random left."""
    crop_samples = 32_000
    wavs = [read_wav(clip.path, sample_rate=16_000)[:crop_samples] for clip in notes]
    padded = torch.from_numpy(np.stack([np.pad(wav, (0, crop_samples - len(wav))) for wav in wavs]))
    direct = LOGMEL.crop(padded).double()
    statistics = measure_audio(notes, AudioCrops(crop_samples, RATE), LOGMEL, seed=0, workers=0)
    assert statistics.mean == pytest.approx([direct.mean().item()], abs=1e-6)
    assert statistics.std == pytest.approx([direct.std(correction=0).item()], abs=1e-6)
    assert (statistics.clips, statistics.bad) == (len(notes), ())


def test_clips_count_as_often_as_their_set_is_repeated(notes: ClipList, tmp_path: Path) -> None:
    for name, level in (("loud", 0.5), ("quiet", 0.001)):
        noise = np.random.default_rng(0).standard_normal((3, 8000)) * level
        for number, wav in enumerate(noise):
            soundfile.write(tmp_path / f"{name}{number}.wav", wav.clip(-1, 1), RATE)
        (tmp_path / f"{name}.csv").write_text(f"path\n{name}0.wav\n{name}1.wav\n{name}2.wav\n")
    sets = {name: (CsvDataset(path=tmp_path / f"{name}.csv"), None) for name in ("loud", "quiet")}

    def mean(**repeats: int) -> float:
        clips = join_sets(sets, repeats=repeats)
        return measure_audio(clips, AudioCrops(8000, RATE), LOGMEL, seed=0, workers=0).mean[0]

    loud, even = mean(loud=9), mean()
    assert mean(quiet=9) + loud == pytest.approx(2 * even, abs=0.05) and loud > even + 3


def test_at_most_so_many_clips_the_same_for_any_workers(notes: ClipList) -> None:
    alone, together = (
        measure_audio(notes, AudioCrops(8000, RATE), LOGMEL, seed=1, max_clips=40, workers=workers)
        for workers in (0, 2)
    )
    assert alone == together
    assert alone.clips == 40


def test_the_clips_are_a_random_choice(notes: ClipList) -> None:
    """Crops as long as the clips leave only the choice to chance."""
    means = [
        measure_audio(notes, AudioCrops(32_000, RATE), LOGMEL, seed=seed, max_clips=10, workers=0).mean[0]
        for seed in (1, 2)
    ]
    assert means[0] != pytest.approx(means[1], abs=1e-3)


def test_white_noise_has_the_mean_of_its_level() -> None:
    """Ten dB less noise is a mean log-mel that is ten dB lower."""
    loud, soft = (
        measure_noise(
            ColouredNoise(16_000, exponent=0.0, level_dbfs=level),
            LOGMEL,
            crop_samples=8000,
            seed=0,
            draws=20,
            workers=0,
        )
        for level in (-10.0, -20.0)
    )
    assert loud.mean[0] - soft.mean[0] == pytest.approx(np.log(10.0), abs=0.01)
    assert loud.clips == 20


def test_bad_files_are_named_once(tmp_path: Path, notes: ClipList) -> None:
    clips = pack_clips(
        [*list(notes)[:5], Clip(tmp_path / "none.wav"), Clip(tmp_path / "none.wav", start=1.0)]
    )
    expected = ((str(tmp_path / "none.wav"), "missing: no such file"),)
    statistics = measure_audio(clips, AudioCrops(8000, RATE), LOGMEL, seed=0, workers=0)
    assert statistics.bad == expected
    assert statistics.clips == 7  # the bad ones were replaced
    noise = ClipNoise(16_000, clips)
    assert measure_noise(noise, LOGMEL, crop_samples=8000, seed=0, draws=40, workers=0).bad == expected


def test_silence_has_no_statistics(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    with pytest.raises(AudioError, match=r"of the data must vary.* are they silent"):
        clips = pack_clips([Clip(tmp_path / "silence.wav")])
        measure_audio(clips, AudioCrops(8000, RATE), LOGMEL, seed=0, workers=0)


class Constant(NoiseSource):
    """One value, all along."""

    name = "constant"

    def __init__(self, value: float) -> None:
        super().__init__(16_000)
        self.value = value

    def draw(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        return torch.full((num_samples,), self.value)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0.0, AudioError, r"of the noise source 'constant' must vary.* are they silent"),
        (np.nan, PluginError, r"noise source 'constant': its samples must be finite"),
        (3e38, AudioError, r"of the noise source 'constant' must be finite"),  # its power is not
    ],
)
def test_noise_without_statistics_is_named(value: float, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure_noise(Constant(value), LOGMEL, crop_samples=8000, seed=0, draws=4, workers=0)
