"""The teacher alone: its contract, its features, its settings, and what it refuses."""

import argparse
import logging
from pathlib import Path

import m2dx_teacher
import numpy as np
import pytest
import torch
from m2dx_teacher import Gram, M2DTeacher
from m2dx_teacher.sample import write_encoder
from m2dx_teacher.statistics import LogMelStatistics
from safetensors.torch import load_file
from torch import Tensor

import m2dx
from m2dx.contract.package import STARTER
from m2dx.jobs import core
from m2dx.testing import check_offline_encoder, check_regulariser

HOP = 160  # samples at 16 kHz
FRAMES = 64  # of the teacher's input, 4 patches of 16
DATA = m2dx.DataInfo(16_000, 10_240, {})
PARITY = Path(__file__).parents[3] / "tests" / "data" / "parity"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of 16 kHz with 5 x 4 patches."""
    folder = tmp_path_factory.mktemp("weights") / "teacher"
    write_encoder(folder)
    return folder


@pytest.fixture
def at_32_khz(tmp_path: Path) -> Path:
    """The same weights, but of a model that hears 32 kHz."""
    return write_encoder(tmp_path / "wide", sample_rate=32_000)


def wav(samples: int, *, batch: int = 2) -> Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(samples)) * 0.1


def views(samples: Tensor, rate: int = 16_000) -> m2dx.Views:
    """Views whose log-mel is of no use, as the teacher makes its own."""
    return m2dx.Views(m2dx.Waveforms(samples, rate), torch.full((len(samples), 1, 80, 4), torch.nan))


def teach(encoder: M2DTeacher, samples: Tensor) -> Tensor:
    with torch.no_grad():
        target: Tensor = encoder(views(samples, encoder.sample_rate or 0))
    return target


def test_it_keeps_the_contract(weights: Path, at_32_khz: Path) -> None:
    """At crops of 16 and 32 kHz, shorter and longer than its own input."""
    check_offline_encoder(M2DTeacher, weights=weights)
    check_offline_encoder(M2DTeacher, weights=at_32_khz)


def test_the_plugin_offers_it() -> None:
    host = m2dx.PluginHost({"teacher": m2dx_teacher})
    assert [record.error for record in host.records] == [None]
    assert host.names("offline_encoder") == ("log_mel_statistics", "m2d_teacher")


def test_log_mel_statistics_are_mean_and_deviation_of_each_band() -> None:
    check_offline_encoder(LogMelStatistics)
    logmel = torch.randn(3, 1, 4, 50, generator=torch.Generator().manual_seed(0)) * 2 + 1
    views = m2dx.Views(m2dx.Waveforms(torch.zeros(3, 8000), 16_000), logmel)
    found = LogMelStatistics(n_mels=4)(views)
    expected = np.concatenate([logmel.numpy().mean(3)[:, 0], logmel.numpy().std(3)[:, 0]], axis=1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    with pytest.raises(m2dx.RecipeError, match=r"n_mels must be the recipe's audio\.n_mels, 4, but is 80"):
        LogMelStatistics()(views)


def test_its_signal_is_what_the_encoder_gives_by_eq_4(weights: Path) -> None:
    teacher = M2DTeacher(DATA, weights=weights)
    expected = m2dx.load_encoder(weights)(wav(FRAMES * HOP))
    target = teach(teacher, wav(FRAMES * HOP))
    assert target.shape == (2, 4, 5 * 192)
    assert torch.equal(target, expected)
    assert (teacher.sample_rate, teacher.frame_rate, teacher.embed_dim) == (16_000, 6.25, 960)
    assert not teacher.teacher.training and not any(p.requires_grad for p in teacher.parameters())


def test_the_starter_teaches_by_its_name(tmp_path: Path) -> None:
    text = (
        "tasks: {own: {offline_encoder: {name: m2d_teacher, weights: %s}, online_mapper: linear, loss: mse}}"
    )
    for weights, expected in (("starter", STARTER), ("./starter", tmp_path / "starter")):
        data = "data: {sets: {all: {dataset: {name: folder, path: x}}}}"
        (tmp_path / "own.yaml").write_text(f"{data}\n{text % weights}\n", encoding="utf-8")
        host = m2dx.PluginHost({"core": core, "teacher": m2dx_teacher})
        recipe = m2dx.load_recipe(tmp_path / "own.yaml", host=host)
        assert recipe.tasks["own"].offline_encoder.weights == expected


def test_its_signal_may_be_of_any_layer(weights: Path) -> None:
    samples = wav(FRAMES * HOP)
    encoder = m2dx.load_encoder(weights)
    expected = encoder.encode_logmel(encoder.standard_logmel(samples), layers=(0, 1, 2))
    for layer, features in enumerate(expected):
        assert torch.equal(teach(M2DTeacher(DATA, weights=weights, layer=layer), samples), features)
    assert torch.equal(teach(M2DTeacher(DATA, weights=weights), samples), expected[2])
    check_offline_encoder(M2DTeacher, weights=weights, layer=1)
    with pytest.raises(m2dx.RecipeError, match=r"layer must be 0 to 2, the blocks of .*teacher, but is 3"):
        M2DTeacher(DATA, weights=weights, layer=3)


def test_each_vector_holds_the_patches_of_one_time(weights: Path) -> None:
    """Eq. (4) written out: token (f, t) is the f-th part of frame t."""
    encoder = m2dx.load_encoder(weights)
    logmel = encoder.standard_logmel(wav(FRAMES * HOP))
    with torch.no_grad():
        tokens = encoder.encoder(logmel)[:, 1:]  # (B, 1 + F*T, D) without the class token
    target = teach(M2DTeacher(DATA, weights=weights), wav(FRAMES * HOP))
    for f, t in ((0, 0), (2, 1), (4, 3)):
        torch.testing.assert_close(target[:, t, f * 192 : (f + 1) * 192], tokens[:, f * 4 + t])


@pytest.mark.parametrize(
    ("samples", "frames"),
    [
        (100, 1),  # less than a frame
        (HOP * 15, 1),
        (HOP * 16 + HOP - 1, 1),
        (HOP * 17, 2),
        (HOP * FRAMES, 4),
        (HOP * (FRAMES + 1), 5),  # longer than its input: one patch of a second piece
        (HOP * 208, 13),
    ],
)
def test_frames_are_declared_as_they_come(weights: Path, samples: int, frames: int) -> None:
    teacher = M2DTeacher(DATA, weights=weights)
    assert teacher.num_frames(samples) == frames
    assert teach(teacher, wav(samples)).shape == (2, frames, 960)


def test_a_crop_longer_than_its_input_is_split(weights: Path) -> None:
    teacher = M2DTeacher(DATA, weights=weights)
    long = wav(HOP * FRAMES * 2)
    changed = long.clone()
    changed[:, : HOP * 20] = 0.0
    difference = (teach(teacher, long) - teach(teacher, changed)).abs().amax(dim=(0, 2))
    assert (difference > 1e-3).tolist() == [True] * 4 + [False] * 4


def test_it_has_its_own_rate_and_statistics(at_32_khz: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        teacher = M2DTeacher(DATA, weights=at_32_khz)
        assert "knows audio of 32000 Hz, but the recipe's has 16000 Hz" in caplog.text
        assert "hears nothing above 8000 Hz" in caplog.text
        caplog.clear()
        M2DTeacher(m2dx.DataInfo(32_000, 20_480, {}), weights=at_32_khz)
        assert caplog.text == ""
    assert teacher.sample_rate == 32_000 and teacher.frame_rate == 6.25
    samples = wav(2 * HOP * FRAMES)
    assert torch.equal(teach(teacher, samples), m2dx.load_encoder(at_32_khz)(samples))
    other = write_encoder(at_32_khz.parent / "other", sample_rate=32_000, mean=-3.0)
    assert not torch.equal(teach(M2DTeacher(DATA, weights=other), samples), teach(teacher, samples))


def test_the_log_mel_is_float32_under_autocast(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = M2DTeacher(DATA, weights=weights)
    samples, heard = wav(HOP * FRAMES), []
    standard = teacher.teacher.standard_logmel

    def listen(wav: Tensor) -> Tensor:
        heard.append(standard(wav))
        return heard[-1]

    monkeypatch.setattr(teacher.teacher, "standard_logmel", listen)
    exact = teach(teacher, samples)
    with torch.autocast("cpu", torch.bfloat16):
        rough = teach(teacher, samples)
    assert heard[1].dtype == torch.float32 and torch.equal(heard[0], heard[1])
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.15, rtol=0)  # values are about 1


# Published files


@pytest.fixture(params=["patch16x16", "strip80x4"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint as it is published, in a folder whose name has the rate, with the parity data beside it."""
    source = PARITY / request.param
    folder = tmp_path / "m2d_vit_base-80x608p16x16p32k-240413"
    folder.mkdir()
    state = load_file(source / "m2d_weights.safetensors")
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-3)}, folder / "checkpoint-300.pth")
    for name in ("tensors.safetensors", "m2d_weights.safetensors"):
        (folder / name).symlink_to(source / name)
    return folder / "checkpoint-300.pth"


def test_a_published_file_teaches_what_its_authors_code_gives(published: Path) -> None:
    numbers = load_file(published.parent / "tensors.safetensors")
    teacher = M2DTeacher(DATA, weights=published, num_heads=4)
    with torch.no_grad():
        features = teacher.teacher.encode_logmel(numbers["x"])[0]
    torch.testing.assert_close(features, numbers["encoder_layers_timeframed"][-1], atol=1e-5, rtol=0)
    assert teacher.sample_rate == 32_000  # of the folder's name
    samples = wav(32_000)
    assert torch.equal(teach(teacher, samples), m2dx.load_encoder(published, num_heads=4)(samples))
    check_offline_encoder(M2DTeacher, weights=published, num_heads=4)


def test_what_a_published_file_cannot_tell_is_an_option(published: Path) -> None:
    assert M2DTeacher(DATA, weights=published, num_heads=4, sample_rate=16_000).sample_rate == 16_000
    one, four = (teach(M2DTeacher(DATA, weights=published, num_heads=n), wav(8000)) for n in (1, 4))
    assert not torch.allclose(one, four)


def test_the_head_of_a_fine_tuned_file_is_left_out(published: Path, tmp_path: Path) -> None:
    state = load_file(published.with_name("m2d_weights.safetensors"))
    width = m2dx.load_encoder(published, num_heads=4).embed_dim
    head = {
        "norm.running_mean": torch.zeros(width),
        "norm.running_var": torch.ones(width),
        "mlp.mlp.0.weight": torch.zeros(7, width),
        "mlp.mlp.0.bias": torch.zeros(7),
    }
    tuned = {f"module.ar.runtime.backbone.{key}": value for key, value in state.items()}
    tuned |= {f"module.head.{key}": value for key, value in head.items()}
    torch.save(tuned, tmp_path / "weights.pth")
    assert m2dx.load_encoder(tmp_path / "weights.pth", num_heads=4).head is not None
    teacher = M2DTeacher(DATA, weights=tmp_path / "weights.pth", num_heads=4)
    assert teacher.teacher.head is None


# Relations


def test_gram_is_zero_for_the_same_relations_whatever_the_width() -> None:
    check_regulariser(Gram)
    check_regulariser(Gram, across_clips=True)
    normal = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0))
    tokens, shapes = normal[:, :3, :2], m2dx.TaskShapes((1, 3), 2, 3, 2)
    turned = tokens @ torch.linalg.qr(normal[0, :, :2]).Q.mT  # (B, 3, 4), at the same angles
    output = m2dx.MaskedModelOutput(tokens.mean(), tokens, tokens, tokens, tokens)
    for options in ({}, {"across_clips": True}, {"remove_mean": False}):
        gram = Gram(shapes, **options)
        assert float(gram(output, turned)) < 1e-10
        assert float(gram(output, tokens.flip(1))) > 1e-3
    with pytest.raises(m2dx.RecipeError, match="gram needs a teacher; add an offline_encoder to the task"):
        Gram(m2dx.TaskShapes((1, 3), 16, None, 0))
    with pytest.raises(
        m2dx.RecipeError, match="gram relates the 3 frames of the patch grid, but the teacher gives 7"
    ):
        Gram(m2dx.TaskShapes((1, 3), 2, 7, 2))


# What is refused


def test_options_that_contradict_the_file(weights: Path) -> None:
    M2DTeacher(DATA, weights=weights, sample_rate=16_000, num_heads=3)  # what the file says itself
    with pytest.raises(m2dx.RecipeError, match=r"sample_rate must be 16000 or left out.*but is 32000"):
        M2DTeacher(DATA, weights=weights, sample_rate=32_000)
    with pytest.raises(m2dx.RecipeError, match=r"num_heads must be 3 or left out.*but is 12"):
        M2DTeacher(DATA, weights=weights, num_heads=12)


def test_weights_that_cannot_be_used(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(m2dx.CheckpointError, match=r"gone: no such file or folder"):
        M2DTeacher(DATA, weights=tmp_path / "gone")
    with pytest.raises(m2dx.CheckpointError, match="neither an export"):
        M2DTeacher(DATA, weights=tmp_path)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(m2dx.CheckpointError, match=r"text\.pth: not a readable checkpoint"):
        M2DTeacher(DATA, weights=tmp_path / "text.pth")
    write_encoder(tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(m2dx.CheckpointError, match=r"model\.safetensors: not a readable checkpoint"):
        M2DTeacher(DATA, weights=tmp_path / "cut")
