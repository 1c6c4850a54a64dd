"""Defaults that depend on another field: the published settings of a sampling rate and of a method."""

import pytest

from m2dx.contract.host import PluginHost
from m2dx.jobs import core
from m2dx.recipe.model import recipe_model
from m2dx.recipe.schema import AudioSection

DATA = {"sets": {"main": {"dataset": {"name": "folder", "path": "a"}}}}


@pytest.fixture(scope="module")
def core_host() -> PluginHost:
    return PluginHost({"m2dx": core})


def test_log_mel_settings_follow_the_sampling_rate() -> None:
    at_32k = AudioSection(sample_rate=32_000)
    assert (at_32k.n_fft, at_32k.win_length, at_32k.hop_length) == (800, 800, 320)
    assert (at_32k.n_mels, at_32k.f_min, at_32k.f_max) == (80, 50.0, 16_000.0)
    assert AudioSection(sample_rate=32_000, hop_length=400).hop_length == 400
    assert AudioSection(sample_rate=32_000).crop_frames == AudioSection().crop_frames == 608


def test_the_decoder_follows_the_method(core_host: PluginHost) -> None:
    """Whether its name is given alone or in a mapping."""

    def predictor(**model: object) -> tuple[int, ...]:
        recipe = recipe_model(core_host).model_validate({"data": DATA, "model": model})
        return tuple(dict(recipe.model.predictor).values())

    assert predictor() == predictor(method="m2d") == (512, 8, 16)
    assert predictor(method="msm_mae") == predictor(method={"name": "msm_mae"}) == (384, 4, 6)
    assert predictor(method="msm_mae", predictor={"depth": 2}) == (384, 2, 6)
