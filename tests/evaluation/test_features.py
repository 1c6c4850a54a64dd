import numpy as np
import pytest
import soundfile
import torch

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError, TrainingError
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation.features import Standardiser, extract
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.schema import AudioSection, ModelSection


@pytest.fixture
def clips(tone):
    return [
        tone(label, split=split) for split in ("train", "valid", "test") for label in ("low", "mid", "high")
    ]


def test_features_do_not_depend_on_the_batch_size_and_keep_the_order(clips, list_dataset, spectrum_encoder):
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    features = extract(spectrum_encoder, task, batch_size=4)
    assert [len(wav) for wav in spectrum_encoder.seen] == [4, 4, 1]
    assert features.x.shape == (9, 3) and features.x.dtype == torch.float32
    torch.testing.assert_close(features.x, extract(spectrum_encoder, task, batch_size=9).x)
    assert features.y.tolist() == [1, 2, 0] * 3  # high, low, mid
    torch.testing.assert_close(features.x.argmax(1), torch.tensor([0, 1, 2] * 3))  # the bands of the tones


@pytest.mark.parametrize("short_clips", ["pad", "repeat"])
def test_clips_are_cut_to_their_beginning_or_filled(
    tmp_path, clips, list_dataset, spectrum_encoder, short_clips
):
    ramp = np.arange(1, 1601, dtype=np.float32) / 2000
    soundfile.write(clips[0].path, ramp, 8000, subtype="FLOAT")
    soundfile.write(clips[1].path, ramp[:300], 8000, subtype="FLOAT")
    task = ClipTask.from_dataset("tones", list_dataset(clips), unit_seconds=0.1, short_clips=short_clips)
    extract(spectrum_encoder, task, batch_size=9)
    (wav,) = spectrum_encoder.seen
    assert wav.shape == (9, 800)
    np.testing.assert_allclose(wav[0], ramp[:800])
    filled = np.tile(ramp[:300], 3)[:800] if short_clips == "repeat" else np.pad(ramp[:300], (0, 500))
    np.testing.assert_allclose(wav[1], filled)


def test_features_that_are_not_finite_are_refused(clips, list_dataset, spectrum_encoder):
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    inner = spectrum_encoder.clip
    spectrum_encoder.clip = lambda wav: (
        inner(wav) * torch.where(torch.arange(len(wav)) == 4, torch.nan, 1.0)[:, None]
    )
    with pytest.raises(TrainingError, match=f"not for 1 clips, the first one {clips[4].path}"):
        extract(spectrum_encoder, task, batch_size=9)


def test_an_encoder_of_another_width_is_refused(clips, list_dataset, spectrum_encoder):
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    inner = spectrum_encoder.clip
    spectrum_encoder.clip = lambda wav: inner(wav)[:, :2]
    with pytest.raises(TrainingError, match=r"embed_dim \(3\) per clip, but gave \(9, 2\)"):
        extract(spectrum_encoder, task, batch_size=9)


def test_a_file_that_vanished_is_named(clips, list_dataset, spectrum_encoder):
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    clips[5].path.unlink()
    with pytest.raises(AudioError, match=str(clips[5].path)):
        extract(spectrum_encoder, task, batch_size=2)


def test_standardised_training_features_have_mean_0_and_variance_1():
    x = torch.tensor([[1.0, 5.0, 1e6], [3.0, 5.0, 1e6 + 2]])
    standardise = Standardiser.fit(x)
    np.testing.assert_allclose(standardise(x)[:, 0], [-1, 1])
    np.testing.assert_allclose(
        standardise(torch.tensor([[5.0, 6.0, 1e6]]))[0, :2], [3, 1]
    )  # constant: shifted only


@pytest.mark.parametrize(
    ("scale", "seconds", "reason"),
    [
        (20_000, 0.2, "6 of 6 are.*a-train.wav: samples up to .*divide those of 16 bits"),
        (0.1, 0.004, "6 clips from .*a-train.wav on have no .*with N >= 160, but is"),
    ],
)
def test_clips_that_the_encoder_refuses_are_told_with_the_task(
    scale, seconds, reason, tmp_path, list_dataset
):
    clips = [
        Clip(tmp_path / f"{label}-{split}.wav", labels=(label,), split=split)
        for split in ("train", "valid", "test")
        for label in "ab"
    ]
    for number, clip in enumerate(clips):
        wav = np.random.default_rng(number).normal(scale=scale, size=round(16_000 * seconds))
        soundfile.write(clip.path, wav, 16_000, subtype="FLOAT")
    model = ModelSection(size="tiny", depth=1)
    encoder = random_encoder(AudioSection(crop_seconds=0.64), model, mean=-7.0, std=4.0, seed=0)
    with pytest.raises(TrainingError, match=rf"(?s)task 'tones': .*{reason}"):
        ClipTask.from_dataset("tones", list_dataset(clips)).features(encoder)
