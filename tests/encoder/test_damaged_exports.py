"""An export that was changed, mixed with another, or cannot be right is refused in a line, at once."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from m2dx.cli import app
from m2dx.contract import atomic
from m2dx.contract.errors import CheckpointError
from m2dx.encoder.audio import load_any_encoder, load_encoder
from m2dx.encoder.config import EncoderConfig
from m2dx.encoder.weights import digest_of_tensors, encoder_writer, export_encoder, read_weights, write_export
from m2dx.model.vit import Encoder
from m2dx.recipe.loading import recipe_to_mapping, recipe_to_yaml
from m2dx.testing.samples import write_encoder

WRONG = (0, -16, 10**12, "x", float("nan"), [], None)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("exports") / "encoder", width=64, heads=1)


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*where, key)
        yield from places(item, (*where, key))


def changed(config: Any, where: tuple[Any, ...], wrong: Any) -> Any:
    copy = json.loads(json.dumps(config))
    inner = copy
    for key in where[:-1]:
        inner = inner[key]
    if wrong == "gone":
        del inner[where[-1]]
    else:
        inner[where[-1]] = wrong
    return copy


FREE = {
    ("m2dx_version",),
    ("embed_dim",),
    ("sample_rate",),
    ("frame_rate",),
}
"""Places that m2dx does not read."""


def test_a_config_with_wrong_content_is_refused(export: Path, tmp_path: Path) -> None:
    """Each of its places with each wrong value; without the memory that such sizes would ask for."""
    folder = shutil.copytree(export, tmp_path / "encoder")
    config = json.loads((export / "config.json").read_text())
    changes = [(where, wrong) for where in places(config) for wrong in (*WRONG, "gone")]
    texts = ["", "[]", "5", "{", "[" * 100_000, "9" * 5000, "\0"]
    before, loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for text in [*texts, *(json.dumps(changed(config, *change)) for change in changes)]:
        (folder / "config.json").write_text(text)
        try:
            load_any_encoder(folder)
        except CheckpointError as error:
            assert str(folder) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
        else:
            loaded.append(text)
    assert len(changes) > 200
    for where, wrong in changes:
        if json.dumps(changed(config, where, wrong)) in loaded:
            assert where in FREE or (where in {("format",), ("version",)} and wrong == "gone"), (where, wrong)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 700_000, grown  # kB


def test_no_flipped_bit_of_the_weights_goes_unnoticed(export: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(export, tmp_path / "encoder")
    file, draw, told = folder / "model.safetensors", random.Random(0), 0
    whole, expected = file.read_bytes(), load_encoder(export).state_dict()
    header = int.from_bytes(whole[:8], "little")
    for place in [*draw.sample(range(8 + header), 40), *draw.sample(range(len(whole)), 40)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        try:
            found = load_encoder(folder).state_dict()
        except CheckpointError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
            told += 1
        else:
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert told > 70


def test_files_of_two_exports_are_refused(export: Path, tmp_path: Path) -> None:
    other = write_encoder(tmp_path / "other", width=64, heads=1, seed=1)
    shutil.copy(export / "config.json", other / "config.json")
    with pytest.raises(CheckpointError, match=r"other: model\.safetensors must have the SHA-256 that config"):
        load_encoder(other)
    again = [
        write_encoder(tmp_path / name, width=64, heads=1) / "model.safetensors" for name in ("one", "two")
    ]
    assert again[0].read_bytes() == again[1].read_bytes() == (export / "model.safetensors").read_bytes()


def test_weights_that_are_not_finite_are_named(export: Path, tmp_path: Path) -> None:
    weights = read_weights(export)
    for value in (float("nan"), float("inf")):
        network = Encoder(weights.config.grid, weights.config.vit)
        with torch.no_grad():
            network.trunk.blocks[1].mlp.fc1.weight[3, 5] = value
        with pytest.raises(
            CheckpointError, match=r"broken: weights must be finite, but .*blocks\.1\.mlp\.fc1\.weight"
        ):
            write_export(tmp_path / "broken", network, weights.config)
    for wrong in (
        torch.full((64,), torch.nan),
        torch.full((64,), 1e300, dtype=torch.float64),  # which float32 does not hold
        torch.full((64,), torch.nan).to(torch.float8_e4m3fn),
    ):
        published = {**load_file(export / "model.safetensors"), "norm.bias": wrong}
        torch.save({"model": published}, tmp_path / "published.pth")
        with pytest.raises(
            CheckpointError, match=r"published\.pth: weights must be finite, but .*norm\.bias"
        ):
            load_encoder(tmp_path / "published.pth")


GOLDEN_CHANGES: dict[str, tuple[str, Any]] = {
    "mean": ("logmel", {"mean": -7.05}),
    "std": ("logmel", {"std": 4.1}),
    "f_min": ("logmel", {"audio": {"f_min": 60.0}}),
    "n_fft": ("logmel", {"audio": {"n_fft": 512, "win_length": 400}}),
    "hop": ("logmel", {"audio": {"hop_length": 200}}),
    "one tensor": ("frames", "blocks.1.mlp.fc2.weight"),
    "heads": ("frames", {"vit": {"embed_dim": 64, "depth": 2, "num_heads": 2}}),
}


@pytest.mark.parametrize("change", GOLDEN_CHANGES)
@pytest.mark.parametrize("long_clips", ["split", "interpolate"])
def test_an_encoder_that_gives_something_else_is_refused(
    export: Path, tmp_path: Path, change: str, long_clips: Any
) -> None:
    """Also where whoever changed it has mended the checksum."""
    folder = shutil.copytree(export, tmp_path / "encoder")
    load_encoder(folder, long_clips=long_clips)
    blamed, new = GOLDEN_CHANGES[change]
    tensors, config = (
        load_file(folder / "model.safetensors"),
        json.loads((folder / "config.json").read_text()),
    )
    if isinstance(new, str):
        tensors[new] = tensors[new] * 1.05
        save_file(tensors, folder / "model.safetensors")
        config["sha256"] = digest_of_tensors(tensors, {})
    else:
        for key, value in new.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=rf"encoder: the {blamed} of the sound in golden\.safetensors must"
    ):
        load_encoder(folder, long_clips=long_clips)


def test_an_export_without_its_golden_clip_is_refused(export: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(export, tmp_path / "encoder")
    (folder / "golden.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"encoder: must have golden\.safetensors, which `m2dx export`"):
        load_encoder(folder)


@pytest.fixture
def checkpoint(tiny_recipe: Any, host: Any, tmp_path: Path) -> Path:
    """The weights beside a checkpoint of a run that was not trained."""
    from m2dx.contract.components import DataInfo
    from m2dx.model.build import build_model

    recipe = tiny_recipe(f"init_from={write_encoder(tmp_path / 'start')}", labels=True)
    data = DataInfo(label_names={"notes": ("a", "b")}, sample_rate=16_000, crop_samples=5120)
    model = build_model(recipe, data, host).training_state()
    state = {"recipe": recipe_to_mapping(recipe), "model": model, "step": 3, "version": 1}
    state |= {"clips": {"count": 7, "fingerprint": "abc"}, "yaml": recipe_to_yaml(recipe)}
    path = tmp_path / "step-00000003.encoder.safetensors"
    with path.open("wb") as file:
        encoder_writer(state)(file)
    return path


def test_bits_beside_a_checkpoint(checkpoint: Path) -> None:
    whole, draw = checkpoint.read_bytes(), random.Random(1)
    expected = read_weights(checkpoint)
    header = int.from_bytes(whole[:8], "little")
    for place in [*draw.sample(range(8, header), 30), *draw.sample(range(header, len(whole)), 10)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        checkpoint.write_bytes(damaged)
        try:
            found = read_weights(checkpoint)
        except CheckpointError as error:
            assert str(checkpoint) in str(error) and "\n" not in str(error)
        else:
            assert found.config == expected.config


def test_an_export_carries_what_is_needed_to_use_and_to_cite_it(
    checkpoint: Path, tmp_path: Path, tiny_recipe: Any
) -> None:
    import hashlib

    folder = export_encoder(checkpoint, tmp_path / "out")
    text = (folder / "config.json").read_text()
    config = json.loads(text)
    assert str(tmp_path) not in text and str(Path(__file__).parents[2]) not in text
    recipe = tiny_recipe(f"init_from={tmp_path / 'start'}", labels=True)
    assert config["recipe"] | {"model": 0, "tasks": 0} == {
        "name": recipe.name,
        "init_from": "start",
        "short_clips": "pad",
        "clips": {"count": 7, "fingerprint": "abc"},
        "sha256": hashlib.sha256(recipe_to_yaml(recipe).encode()).hexdigest(),
        "model": 0,
        "tasks": 0,
    }
    assert config["step"] == 3 and config["m2dx_version"] == EncoderConfig.model_validate(config).m2dx_version
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o644


def test_another_model_is_not_written_over(
    checkpoint: Path, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(export, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    refused = CliRunner().invoke(app, ["export", str(checkpoint), str(folder)])
    assert isinstance(refused.exception, CheckpointError) and "--overwrite" in str(refused.exception)
    (folder / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"must have no model, but has model\.safetensors"):
        export_encoder(checkpoint, folder)
    (tmp_path / "config.json").rename(folder / "config.json")
    write, calls = atomic._write_synced, []

    def full(path: Path, writer: Any) -> None:
        calls.append(path.name)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(path, writer)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(atomic, "_write_synced", full)
        export_encoder(checkpoint, folder, overwrite=True)
    assert content() == before
    for name in ("model.onnx", "model.int8.onnx", "onnx.json"):  # of the weights before
        (folder / name).touch()
    done = CliRunner().invoke(app, ["export", str(checkpoint), str(folder), "--overwrite"])
    assert done.exit_code == 0 and content() != before
    assert content().keys() == before.keys() | {"mappers.safetensors"}  # of the checkpoint's task
    load_encoder(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.parametrize("name", ["pipe.pt", "pipe.safetensors", "model.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, export: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    path = tmp_path / name
    if name == "model.safetensors":  # of an export
        shutil.copy(export / "config.json", tmp_path)
        path = tmp_path
    with pytest.raises(CheckpointError, match=rf"{name}: not a readable checkpoint: .*a pipe or a device"):
        load_encoder(path)
