"""Defaults that depend on another field: the published settings of a sampling rate and of a method."""

from m2dx.recipe.schema import AudioSection, ModelSection


def test_log_mel_settings_follow_the_sampling_rate() -> None:
    at_32k = AudioSection(sample_rate=32_000)
    assert (at_32k.n_fft, at_32k.win_length, at_32k.hop_length) == (800, 800, 320)
    assert (at_32k.n_mels, at_32k.f_min, at_32k.f_max) == (80, 50.0, 16_000.0)
    assert AudioSection(sample_rate=32_000, hop_length=400).hop_length == 400
    assert AudioSection(sample_rate=32_000).crop_frames == AudioSection().crop_frames == 608


def test_the_decoder_follows_the_method() -> None:
    assert tuple(dict(ModelSection().predictor).values()) == (512, 8, 16)
    assert tuple(dict(ModelSection(method="msm_mae").predictor).values()) == (384, 4, 6)
    given = ModelSection.model_validate({"method": "msm_mae", "predictor": {"depth": 2}})
    assert tuple(dict(given.predictor).values()) == (384, 2, 6)
