"""The HEAR interface: what hear-validator (HEAR 2021) checks, and what its tasks rely on.

The validator itself needs TensorFlow; its checks of PyTorch models are stated here again.
"""

import importlib
from pathlib import Path

import pytest
import torch
from m2dx_tasks import hear

from m2dx.contract.errors import CheckpointError
from m2dx.encoder.audio import random_encoder
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.testing.samples import write_encoder


def model_of(patch: tuple[int, int] = (80, 2), *, sample_rate: int = 16_000) -> hear.HearModel:
    audio = AudioSection(sample_rate=sample_rate, crop_seconds=0.64)
    model = ModelSection(size="tiny", depth=1, patch_size=patch)
    return hear.HearModel(random_encoder(audio, model, mean=-7.0, std=4.0, seed=0)).eval()


def noise(sounds: int, seconds: float, model: hear.HearModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(sounds, int(seconds * model.sample_rate), generator=generator) * 2 - 1


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "encoder")


def test_the_module_loads_a_model_from_a_path_given_as_text(export: Path) -> None:
    module = importlib.import_module("m2dx_tasks.hear")
    model = module.load_model(str(export))
    assert isinstance(model, torch.nn.Module) and not model.training
    assert model.sample_rate in (16_000, 22_050, 44_100, 48_000)
    assert type(model.scene_embedding_size) is int and type(model.timestamp_embedding_size) is int
    assert model.scene_embedding_size == 5 * 192


def test_no_path_says_what_is_needed() -> None:
    with pytest.raises(CheckpointError, match="needs the path of an encoder"):
        hear.load_model()


def test_timestamp_embeddings_keep_the_validator_s_rules() -> None:
    model = model_of()
    embeddings, timestamps = hear.get_timestamp_embeddings(noise(16, 2.0, model), model)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (16, 100, model.timestamp_embedding_size)
    assert timestamps.shape == (16, 100)
    spacing = timestamps.diff()
    assert spacing.mean() == pytest.approx(20.0) and spacing.mean() <= 50.0
    assert (spacing - spacing.mean()).abs().max() < 1e-3


def test_scene_embeddings_keep_the_validator_s_rules() -> None:
    model = model_of((16, 16))
    audio = noise(8, 3.74, model)
    embeddings = hear.get_scene_embeddings(audio, model)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (8, model.scene_embedding_size)
    frames, _ = hear.get_timestamp_embeddings(audio, model)
    torch.testing.assert_close(embeddings, frames.mean(dim=1))
    assert not embeddings.requires_grad


def test_a_timestamp_is_the_middle_of_what_its_embedding_heard() -> None:
    """A click changes the first layer's frame at its own time most.

    A log-mel frame is centred on its sample, so patches of 2 frames of 10 ms are about 5, 25, 45, ... ms, not 10, 30.
    """
    model = model_of()
    silence = torch.zeros(1, 16_000)
    click = silence.clone()
    click[0, 8000:8160] = 0.9  # 500 to 510 ms
    changed = model(click) - model(silence)
    # The transformer mixes frames of one chunk: the log-mel itself is looked at, through the patch embedding.
    logmels = [model.encoder.standard_logmel(wav) for wav in (click, silence)]
    tokens = [model.encoder.encoder.patch_embed(logmel) for logmel in logmels]
    loudest = int((tokens[0] - tokens[1]).square().sum(-1).argmax())
    _, timestamps = hear.get_timestamp_embeddings(click, model)
    assert float(timestamps[0, loudest]) == pytest.approx(505.0)
    assert changed.abs().max() > 0


def test_long_recordings_are_encoded_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of((16, 16))
    audio = noise(5, 1.3, model)
    whole, _ = hear.get_timestamp_embeddings(audio, model)
    monkeypatch.setattr(hear, "_BATCH_SECONDS", 2.7)  # two sounds at a time
    parts, _ = hear.get_timestamp_embeddings(audio, model)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(hear.get_scene_embeddings(audio, model), whole.mean(1))


def test_statistics_of_the_batch_are_those_of_the_published_code(export: Path) -> None:
    model = hear.load_model(str(export), batch_statistics=True)
    audio = noise(3, 0.2, model)
    grid = model.encoder.encoder.grid
    logmel = model.encoder.standard_logmel(audio)
    logmel = (logmel - logmel.mean()) / logmel.std()
    filled = torch.zeros(3, 1, grid.input_size[0], grid.input_size[1])
    filled[..., : logmel.shape[-1]] = logmel
    with torch.no_grad():
        expected = model.encoder.encode_logmel(filled)[-1][:, : -(-20 // grid.patch_size[1])]
    torch.testing.assert_close(hear.get_timestamp_embeddings(audio, model)[0], expected)
    louder = hear.get_timestamp_embeddings(audio * 0.5, model)[0]
    torch.testing.assert_close(louder, expected, atol=1e-3, rtol=1e-3)  # a level is a shift of the log-mel


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -20_000.0])
def test_samples_that_m2dx_refuses_are_refused(value: float) -> None:
    model = model_of()
    audio = noise(2, 0.5, model)
    audio[1, 7] = value
    with pytest.raises(ValueError, match="must be finite samples"):
        hear.get_timestamp_embeddings(audio, model)


def test_one_sound_without_a_batch_is_refused() -> None:
    model = model_of()
    with pytest.raises(ValueError, match=r"must be \(n_sounds, n_samples\), but is \(16000,\)"):
        hear.get_scene_embeddings(torch.zeros(16_000), model)
