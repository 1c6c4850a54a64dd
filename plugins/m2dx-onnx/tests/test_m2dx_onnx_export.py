"""ONNX files give what torch gives, whatever the clips; the light package runs them, and refuses what was changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import m2dx_encoder
import numpy as np
import onnx
import pytest
import soundfile
import torch
from m2dx_encoder.runner import Runner
from m2dx_onnx.export import write_onnx
from m2dx_onnx.graph import encoder_graph
from onnx import numpy_helper
from typer.testing import CliRunner

import m2dx
from m2dx.cli import app
from m2dx.encoder.config import ClassifierConfig
from m2dx.encoder.finetuned import FinetunedNetwork
from m2dx.encoder.weights import read_weights, write_export
from m2dx.testing.samples import write_encoder

HOP = 160
LENGTHS = (HOP, 201, HOP * 16, HOP * 17 + 3, HOP * 64, HOP * 65, HOP * 150 + 7)
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "padded": {"short_clips": "pad", "unit_seconds": 1.0},
    "repeated": {"short_clips": "repeat", "unit_seconds": 0.3, "multi_label": True},
    "patchout": {"patchout": 0.5, "unit_seconds": 0.9},
    "deviation": {"deviation": True, "layer": 1, "unit_seconds": 0.9},
    "interpolated": {"long_clips": "interpolate", "unit_seconds": 1.5},
    "interpolated, short": {"long_clips": "interpolate", "unit_seconds": 0.3, "layer": 0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with its ONNX files, by the command line."""
    made = tmp_path_factory.mktemp("exports")
    start, folder = write_encoder(made / "start", width=64, heads=2), made / "encoder"
    result = CliRunner().invoke(app, ["export", str(start), str(folder), "--onnx"], catch_exceptions=False)
    assert result.exit_code == 0 and "the largest difference from torch is" in result.output.replace(
        "\n", " "
    )
    return folder


def clips() -> list[np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    return [draw.standard_normal(length).astype(np.float32) * 0.1 for length in LENGTHS]


@pytest.mark.parametrize("patch", [(16, 16), (80, 4), (20, 16)])
def test_features_are_those_of_torch(
    tmp_path: Path, patch: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_encoder(tmp_path / "encoder", patch=patch, width=64, heads=2)
    assert "largest difference" in write_onnx(folder)
    assert "pre-processing" not in caplog.text
    report = json.loads((folder / "onnx.json").read_text())
    assert report["sounds"] == 28 and report["largest_relative"] < 1e-4 and report["int8_cosine"] > 0.8
    torchs, light = m2dx.load_encoder(folder), m2dx_encoder.Encoder(folder)
    for given, clip in zip(light.frames(clips()), clips(), strict=True):
        expected = torchs(torch.from_numpy(clip))[0].numpy()
        np.testing.assert_allclose(given, expected, atol=1e-4)
        assert light.times(len(given)) == pytest.approx(torchs.times(len(given)).numpy())
    wavs = [torch.from_numpy(clip) for clip in clips()]
    np.testing.assert_allclose(light.clip(clips()), torchs.clip(wavs).numpy(), atol=1e-4)
    assert (light.embed_dim, light.frame_rate) == (torchs.embed_dim, torchs.frame_rate)
    m2dx_encoder.Encoder(folder, "model.int8.onnx")


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_probabilities_are_those_of_torch(tmp_path: Path, kind: str) -> None:
    given = CLASSIFIERS[kind]
    plain = {"multi_label": False, "short_clips": "pad", "long_clips": "split", "patchout": 0.0}
    config = ClassifierConfig(label_names=("a", "b", "c"), **{**plain, **given})
    encoder = m2dx.load_encoder(write_encoder(tmp_path / "start", width=64, heads=2))
    network = FinetunedNetwork(encoder, 3, patchout=config.patchout, deviation=config.deviation)
    state = network.head.state_dict()
    generator = torch.Generator().manual_seed(0)
    for name in ("norm.running_mean", "norm.running_var", "linear.weight"):
        state[name] = torch.rand(state[name].shape, generator=generator) + 0.1
    start = read_weights(tmp_path / "start").config
    folder = tmp_path / "classifier"
    write_export(folder, encoder.encoder, start.model_copy(update={"classifier": config}), state)
    write_onnx(folder)
    torchs, light = m2dx.load_classifier(folder), m2dx_encoder.Encoder(folder)
    expected = torch.cat([torchs.probabilities(torch.from_numpy(clip)) for clip in clips()])
    np.testing.assert_allclose(light.probabilities(clips()), expected.numpy(), atol=1e-4)
    assert light.label_names == ["a", "b", "c"]
    with pytest.raises(ValueError, match="must give frames, but gives logits and probabilities"):
        light.frames(clips())


def changed_tensor(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "blocks.1.mlp.fc2.weight"]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.05, weight.name))
    onnx.save(model, folder / "model.onnx")


def changed_mean(folder: Path) -> None:
    network = m2dx.load_encoder(folder)
    network.mean += 0.1
    onnx.save(encoder_graph(network), folder / "model.onnx")


def other_mels(folder: Path) -> None:
    network = m2dx.load_encoder(folder)
    network.logmel = m2dx.LogMel(f_min=60.0)
    onnx.save(encoder_graph(network), folder / "model.onnx")


DAMAGES = {
    "a tensor": (changed_tensor, r"model\.onnx must give what golden\.safetensors holds"),
    "the mean": (changed_mean, r"model\.onnx must give what golden\.safetensors holds"),
    "the mels": (other_mels, r"model\.onnx must give what golden\.safetensors holds"),
    "no file": (lambda folder: (folder / "model.onnx").unlink(), r"must have model\.onnx; write it with"),
    "half a file": (lambda folder: (folder / "model.onnx").write_bytes(b"\x08"), "not a whole export"),
    "no golden": (lambda folder: (folder / "golden.safetensors").unlink(), r"must have golden\.safetensors"),
    "no config": (lambda folder: (folder / "config.json").write_text("{}"), "not a whole export: KeyError"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_gives_something_else_is_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    change, message = DAMAGES[damage]
    change(copy)
    with pytest.raises(m2dx_encoder.ExportError, match=message):
        m2dx_encoder.Encoder(copy)


@pytest.mark.parametrize(
    "wav", [[0.0] * 500, np.zeros(159, np.float32), np.zeros((500, 2), np.float32), np.zeros(500, np.int16),
            np.full(500, np.nan, np.float32), np.full(500, 20_000.0, np.float32)]
)  # fmt: skip
def test_what_is_not_audio(folder: Path, wav: Any) -> None:
    with pytest.raises(ValueError, match="each clip must be"):
        m2dx_encoder.Encoder(folder).clip([wav])


@pytest.mark.parametrize("value", [np.nan, np.inf, -20_000.0, None])
def test_the_runner_refuses_what_m2dx_refuses(folder: Path, value: float | None) -> None:
    wav = np.zeros(0, np.float32) if value is None else np.array([0.0] * 499 + [value], np.float32)
    with pytest.raises(ValueError, match="each clip must be"):
        Runner(folder).run([clips()[0], wav])


def test_what_is_not_there(folder: Path) -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        m2dx_encoder.Encoder(folder).clip([])
    with pytest.raises(ValueError, match="must give probabilities, but gives frames and clip"):
        m2dx_encoder.Encoder(folder).probabilities(clips())


@pytest.fixture
def sounds(tmp_path: Path) -> Iterator[list[Path]]:
    """Files of several rates, channels and formats."""
    draw, made = np.random.default_rng(1), []
    for rate, channels, suffix in ((16_000, 1, "wav"), (44_100, 2, "flac"), (8000, 1, "ogg")):
        made.append(tmp_path / f"{rate}.{suffix}")
        soundfile.write(made[-1], 0.1 * draw.standard_normal((rate, channels)), rate)
    yield made


def test_the_runner_needs_no_m2dx(folder: Path, sounds: list[Path]) -> None:
    """It has 90 lines at most, and prints the features that m2dx gives."""
    runner = folder / "runner.py"
    assert len(runner.read_text().splitlines()) <= 90
    blocked = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(['torch', 'm2dx', 'm2dx_encoder', 'onnx']))\n"
    )
    blocked += f"sys.argv = {['runner.py', str(folder), *map(str, sounds)]}\n"
    blocked += f"runpy.run_path({str(runner)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=True)
    network = m2dx.load_encoder(folder)
    for line, path in zip(done.stdout.splitlines(), sounds, strict=True):
        name, *values = line.split()
        expected = network.encode_file(path, pooling="mean").numpy()
        assert name == str(path)
        np.testing.assert_allclose(np.array(values, np.float32), expected, atol=1e-4)


def test_the_runner_goes_on_after_what_cannot_be_read(folder: Path, sounds: list[Path]) -> None:
    odd = sounds[0].with_name("\udcff.wav")  # a name that is not UTF-8
    odd.write_bytes(sounds[0].read_bytes())
    bad = [odd.with_name(name) for name in ("none.wav", "empty.wav", "text.wav", "no samples.wav")]
    bad[1].touch()
    bad[2].write_text("text")
    soundfile.write(bad[3], np.zeros(0), 16_000)
    command = [sys.executable, str(folder / "runner.py"), str(folder), *map(str, [*bad, odd, sounds[1]])]
    done = subprocess.run(command, capture_output=True, check=False)
    told, printed = done.stderr.decode().splitlines(), done.stdout.splitlines()
    assert done.returncode == 1
    assert all(line.startswith(f"{path}: ") for line, path in zip(told, bad, strict=True))
    assert [line.split()[0] for line in printed] == list(map(os.fsencode, [odd, sounds[1]]))


def test_the_light_package_imports_nothing_of_torch() -> None:
    text = "import m2dx_encoder, sys; print({'torch', 'm2dx', 'onnx', 'scipy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_positions_that_are_interpolated_have_no_onnx_file(folder: Path) -> None:
    with pytest.raises(m2dx.CheckpointError, match="must split long clips"):
        encoder_graph(m2dx.load_encoder(folder, long_clips="interpolate"))
