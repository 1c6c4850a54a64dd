"""Reconstructions: visible patches stay, masked ones are the model's, and errors are what they are called."""

import numpy as np
import pytest
import torch
from m2dx_draw.masks import PatchMask
from m2dx_draw.reconstruction import Reconstruction, Reconstructor, load_reconstructor
from m2dx_draw.sounds import Sound, read_sound

from m2dx.contract.atomic import replace_file
from m2dx.contract.components import DataInfo, Mask, PatchGrid
from m2dx.contract.errors import AudioError, CheckpointError
from m2dx.encoder.checkpoint import encoder_file, read_checked, write_atomically
from m2dx.encoder.weights import encoder_writer
from m2dx.model.build import build_model
from m2dx.model.patches import patchify
from m2dx.recipe.loading import recipe_to_mapping
from m2dx.report.reconstruction import unpatchify

MASK = PatchMask("random", ratio=0.6, seed=1)


def batch_mask(is_masked):
    ids = torch.from_numpy(np.argsort(is_masked.ravel(), kind="stable"))[None]
    return Mask(ids, int((~is_masked).sum()))


def patches_of(logmel):
    """(F, T, 16, 16) by plain slicing."""
    return np.array([[logmel[f : f + 16, t : t + 16] for t in range(0, 64, 16)] for f in range(0, 80, 16)])


def test_errors_are_those_of_numpy():
    rng = np.random.default_rng(0)
    logmel, result = rng.normal(size=(2, 4, 6)).astype(np.float32)
    is_masked = np.array([[True, False, False], [False, True, True]])
    item = Reconstruction("a", "", logmel, result, is_masked, 1.0)
    assert np.array_equal(item.error, np.abs(logmel - result))
    assert item.mse == pytest.approx(((logmel - result) ** 2).mean(), rel=1e-6)
    where = [(slice(0, 2), slice(0, 2)), (slice(2, 4), slice(2, 4)), (slice(2, 4), slice(4, 6))]
    squares = [((logmel - result) ** 2)[place].ravel() for place in where]
    assert item.masked_mse == pytest.approx(np.concatenate(squares).mean(), rel=1e-6)


def test_visible_patches_are_as_they_were_and_masked_ones_as_predicted(model, sound):
    item = model.reconstruct(sound, MASK)
    before, after = patches_of(item.logmel), patches_of(item.result)
    with torch.no_grad():
        logmel = torch.from_numpy(item.logmel)[None, None]
        predicted = model.model(logmel, batch_mask(item.is_masked)).prediction[0].numpy()
    for f, t in np.ndindex(5, 4):
        expected = predicted[4 * f + t].reshape(16, 16) if item.is_masked[f, t] else before[f, t]
        np.testing.assert_allclose(after[f, t], expected, atol=1e-6)
    assert item.is_masked.sum() == 12
    assert (item.span.seconds, item.name, item.title) == (0.64, "rising", "mask ratio 0.6, 8 visible")


def test_the_input_is_the_standardised_logmel_and_the_error_of_masked_patches_the_loss(model, sound):
    item = model.reconstruct(sound, MASK)
    expected = (model.logmel.crop(sound.wav[None])[0, 0] + 7.0) / 4.0
    np.testing.assert_array_equal(item.logmel, expected.numpy())
    with torch.no_grad():
        loss = model.model(torch.from_numpy(item.logmel)[None, None], batch_mask(item.is_masked)).loss
    assert item.masked_mse == pytest.approx(float(loss), rel=1e-5)
    assert item.mse == pytest.approx(item.masked_mse * 12 / 20, rel=1e-5)


def test_a_model_of_standardised_targets_gets_each_patchs_own_mean_and_spread_back(model, sound):
    model.model.standardise_target = True
    item = model.reconstruct(sound, MASK)
    assert item.own_scale
    before, after = patches_of(item.logmel), patches_of(item.result)
    with torch.no_grad():
        logmel = torch.from_numpy(item.logmel)[None, None]
        predicted = model.model(logmel, batch_mask(item.is_masked)).prediction[0].numpy()
    for f, t in np.argwhere(item.is_masked):
        patch = before[f, t]
        own = (after[f, t] - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
        np.testing.assert_allclose(own.ravel(), predicted[4 * f + t], atol=1e-4)


def test_short_sounds_are_filled_up_as_in_training_and_long_ones_cut(model, sound):
    short, long = Sound("short", sound.wav[:4000]), Sound("long", sound.wav.repeat(2))
    assert model.short_clips == "repeat"
    filled = torch.cat([short.wav] * 3)[:10_240]
    np.testing.assert_array_equal(
        model.reconstruct(short, MASK).logmel, model.reconstruct(Sound("", filled), MASK).logmel
    )
    np.testing.assert_array_equal(model.reconstruct(long, MASK).logmel, model.reconstruct(sound, MASK).logmel)
    model.short_clips = "pad"
    padded = torch.nn.functional.pad(short.wav, (0, 6240))
    np.testing.assert_array_equal(
        model.reconstruct(short, MASK).logmel, model.reconstruct(Sound("", padded), MASK).logmel
    )


def test_a_model_that_trains_is_drawn_and_left_in_its_mode(model, sound):
    model.model.train()
    drawn = model.reconstruct(sound, MASK)
    assert model.model.training
    model.model.eval()
    np.testing.assert_array_equal(drawn.result, model.reconstruct(sound, MASK).result)
    assert not any(p.grad is not None for p in model.model.parameters())


def test_unpatchify_undoes_patchify():
    grid = PatchGrid((12, 20), (4, 5))
    logmel = torch.arange(480.0).reshape(2, 1, 12, 20)
    assert torch.equal(unpatchify(patchify(logmel, (4, 5)), grid), logmel)


def test_a_run_and_its_checkpoint_give_the_same(runs, model, sound):
    state = read_checked(runs / "msm_mae" / "checkpoints" / "step-00000003.pt")
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, state["model"][f"masked_model.{name}"]), name
    again = load_reconstructor(runs / "msm_mae" / "checkpoints" / "step-00000003.pt")
    expected = model.reconstruct(sound, MASK).result
    np.testing.assert_array_equal(again.reconstruct(sound, MASK).result, expected)
    assert (model.mask_ratio, model.grid, model.num_samples, model.sample_rate) == (
        0.6,
        (5, 4),
        10_240,
        16_000,
    )


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_a_model_with_tasks_is_drawn_too(tiny_recipe, host, tmp_path, sound, labels, beside):
    """From the checkpoint itself, and from the weights that training writes beside it."""
    recipe = tiny_recipe("model.method=msm_mae", "model.mask_ratio=0.6", labels=labels)
    data = DataInfo(label_names={"notes": ("a", "b")}, sample_rate=16_000, crop_samples=5120)
    whole = build_model(recipe, data, host)
    training = Reconstructor(whole.masked_model, whole.views.logmel, -7.0, 4.0, short_clips="repeat")
    state = {
        "format": "m2dx-checkpoint",
        "recipe": recipe_to_mapping(recipe),
        "model": whole.training_state(),
    }
    write_atomically(tmp_path / "step.pt", state)
    if beside:
        replace_file(encoder_file(tmp_path / "step.pt"), encoder_writer(state, whole=True))
    loaded = load_reconstructor(tmp_path / "step.pt")
    assert loaded.mask_ratio == pytest.approx(0.6)
    np.testing.assert_array_equal(
        loaded.reconstruct(sound, MASK).result, training.reconstruct(sound, MASK).result
    )


def test_what_has_no_decoder_is_refused_clearly(runs, tmp_path):
    with pytest.raises(CheckpointError, match=r"method must be msm_mae, but is m2d.*no decoder"):
        load_reconstructor(runs / "m2d")
    for path in (runs / "msm_mae" / "encoder", runs / "msm_mae" / "encoder" / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"an exported encoder.*give the run's folder"):
            load_reconstructor(path)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_reconstructor(tmp_path / "none")
    state = read_checked(runs / "msm_mae" / "checkpoints" / "step-00000003.pt")
    write_atomically(
        tmp_path / "images.pt", {**state, "recipe": {**state["recipe"], "image": {"size": [32, 32]}}}
    )
    with pytest.raises(CheckpointError, match="of images"):
        load_reconstructor(tmp_path / "images.pt")
    write_atomically(tmp_path / "other.pt", {"model": {}})
    with pytest.raises(CheckpointError, match="a published M2D checkpoint must have"):
        load_reconstructor(tmp_path / "other.pt")


def test_files_are_read_from_where_they_are_told_and_errors_name_them(make_wav):
    path = make_wav(seconds=0.5)
    assert read_sound(path, 16_000).name == "noise.wav" and len(read_sound(path, 16_000).wav) == 8000
    assert torch.equal(read_sound(path, 16_000, start=0.25).wav, read_sound(path, 16_000).wav[4000:])
    with pytest.raises(AudioError, match=r"noise.wav: start \(9 s\) must be within the file"):
        read_sound(path, 16_000, start=9)
    with pytest.raises(ValueError, match="N > 0"):
        Sound("empty", torch.zeros(0))
