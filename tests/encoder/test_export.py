"""An export is the checkpoint's encoder, and says everything about itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from m2dx.contract.errors import CheckpointError
from m2dx.contract.package import STARTER
from m2dx.encoder.audio import load_encoder
from m2dx.encoder.checkpoint import read_checked
from m2dx.encoder.weights import encoder_writer, export_encoder, read_weights
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer


@pytest.fixture
def run_folder(tiny_recipe: Any, host: Any, console: Console) -> Path:
    """A run of three steps with checkpoints of steps 2 and 3."""
    files = "data.sets.files={dataset: {name: csv, path: examples/sounds/drums.csv, labels: path}}"
    options = [files, "tasks.labels.offline_encoder.dataset=notes"]
    recipe = tiny_recipe("train.epochs=0.6", "train.checkpoint_every=2", *options, labels=True)
    run = prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console)
    run.folder.mkdir(parents=True)
    Trainer(run, console=console).fit()
    return run.folder


def wav() -> torch.Tensor:
    return torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1


@torch.no_grad()
def test_round_trip(run_folder: Path, tmp_path: Path) -> None:
    newest = run_folder / "checkpoints" / "step-00000003.pt"
    from_checkpoint = load_encoder(newest)
    exported = export_encoder(run_folder, tmp_path / "encoder")
    expected = from_checkpoint(wav())
    assert expected.shape == (2, 7, 5 * 192)
    for path in (
        exported,
        exported / "model.safetensors",
        exported / "config.json",
        run_folder,
        run_folder / "checkpoints",
    ):
        encoder = load_encoder(path)
        assert torch.equal(encoder(wav()), expected), path
        assert (encoder.mean, encoder.std, encoder.sample_rate) == (-7.0, 4.0, 16_000)
        assert not encoder.training
    long = load_encoder(exported, long_clips="interpolate")
    assert long.long_clips == "interpolate" and not torch.allclose(long(wav()), expected)
    older = load_encoder(run_folder / "checkpoints" / "step-00000002.pt")
    assert not torch.equal(older(wav()), expected)
    export_encoder(run_folder / "checkpoints" / "step-00000002.pt", tmp_path / "older")
    assert torch.equal(load_encoder(tmp_path / "older")(wav()), older(wav()))


def test_it_describes_itself(run_folder: Path, tmp_path: Path) -> None:
    folder = export_encoder(run_folder, tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == "m2dx-encoder" and config["version"] == 1 and config["step"] == 3
    assert (config["input_size"], config["patch_size"]) == ([80, 32], [16, 16])
    assert config["vit"] == {"embed_dim": 192, "depth": 1, "num_heads": 3}
    assert (config["sample_rate"], config["embed_dim"], config["frame_rate"]) == (16_000, 960, 6.25)
    assert (config["mean"], config["std"]) == (-7.0, 4.0)
    recipe = config["recipe"]
    assert recipe["tasks"]["labels"]["weight"] == 0.5 and recipe["model"]["mask_ratio"] == 0.6
    assert recipe["clips"]["count"] > 0 and len(recipe["clips"]["fingerprint"]) == 16
    assert recipe["init_from"] is None and "data" not in recipe and "output" not in recipe
    assert str(tmp_path.parent) not in (folder / "config.json").read_text()
    assert "examples/sounds" not in (folder / "config.json").read_text()
    assert len(config["label_names"]["notes"]) == 11 and "files" not in config["label_names"]
    config["label_names"]["files"] = ["/home/me/patient 7.wav"]  # of an older m2dx
    (folder / "config.json").write_text(json.dumps(config))
    copied = json.loads((export_encoder(folder, tmp_path / "copy") / "config.json").read_text())
    assert list(copied["label_names"]) == ["notes"]
    names = set(load_file(folder / "model.safetensors"))
    assert {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "norm.weight",
    } < names
    assert not [name for name in names if "predictor" in name or "target" in name or "task" in name]


@torch.no_grad()
def test_it_is_the_online_network(run_folder: Path) -> None:
    checkpoint = run_folder / "checkpoints" / "step-00000003.pt"
    state = torch.load(checkpoint, weights_only=True)["model"]
    encoder = load_encoder(checkpoint).encoder
    name = "trunk.blocks.0.mlp.fc1.weight"
    assert torch.equal(encoder.get_parameter(name), state[f"masked_model.online.{name}"])


def test_mappers_come_from_a_lone_checkpoint_too(run_folder: Path, tmp_path: Path) -> None:
    newest = run_folder / "checkpoints" / "step-00000003.pt"
    beside = export_encoder(newest, tmp_path / "beside")
    lone = export_encoder(Path(shutil.copy(newest, tmp_path / "lone.pt")), tmp_path / "lone")
    found = [load_file(export / "mappers.safetensors") for export in (beside, lone)]
    assert found[0] and found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("within", [False, True])
def test_an_export_is_the_same_within_autocast(run_folder: Path, tmp_path: Path, *, within: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=within):
        folder = export_encoder(run_folder, tmp_path / "encoder")
    with torch.autocast("cpu", torch.bfloat16, enabled=not within):
        load_encoder(folder)


def test_what_lies_beside_the_weights_of_before_is_told_or_kept(
    run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = export_encoder(Path(STARTER), tmp_path / "encoder")
    assert not caplog.text
    export_encoder(run_folder, folder, overwrite=True)
    assert "README.md, licences said what the weights before were" in caplog.text
    for other in (run_folder, run_folder / "checkpoints" / ".."):
        with pytest.raises(CheckpointError, match="but is that of a run"):
            export_encoder(folder, other, overwrite=True)


def test_errors(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        export_encoder(tmp_path / "none", tmp_path / "out")
    with pytest.raises(CheckpointError, match="neither an export"):
        export_encoder(tmp_path, tmp_path / "out")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="a published M2D checkpoint must have"):
        export_encoder(tmp_path / "other.pt", tmp_path / "out")
    newest = run_folder / "checkpoints" / "step-00000003.encoder.safetensors"
    torch.save({"model": load_file(newest)}, tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match="only m2dx checkpoints and exports can be exported"):
        export_encoder(tmp_path / "published.pth", tmp_path / "out")
    newest.write_bytes(newest.read_bytes()[:5000])
    with pytest.raises(
        CheckpointError, match=r"step-00000003\.encoder\.safetensors: not a readable checkpoint"
    ):
        export_encoder(run_folder, tmp_path / "out")
    newest.unlink()
    checkpoint = newest.with_name("step-00000003.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"step-00000003\.pt: not a readable checkpoint"):
        export_encoder(run_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_without_its_weights(run_folder: Path, tmp_path: Path) -> None:
    folder = export_encoder(run_folder, tmp_path / "encoder")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_encoder(folder)
    shutil.copy(folder / "config.json", folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_encoder(folder)


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True])
def test_beside_a_checkpoint_lies_the_encoder_or_all_that_draws(
    run_folder: Path, tmp_path: Path, *, whole: bool
) -> None:
    """By whatever names: those of a plugin's method may be others than the published ones."""
    state = read_checked(run_folder / "checkpoints" / "step-00000003.pt")
    others = {"masked_model.decoder.weight": torch.ones(2), "masked_model.norm.bias": torch.zeros(3)}
    state["model"] |= others
    path = tmp_path / "step-00000003.encoder.safetensors"
    with path.open("wb") as file:
        encoder_writer(state, whole=whole)(file)
    found = read_weights(path).tensors
    start = "masked_model." if whole else "masked_model.online."
    expected = {name: value for name, value in state["model"].items() if name.startswith(start)}
    assert found.keys() == {name.removeprefix("masked_model.") for name in expected}
    assert all(torch.equal(found[name.removeprefix("masked_model.")], of) for name, of in expected.items())


def test_encoders_and_exports_leave_the_checkpoint_alone(run_folder: Path, tmp_path: Path) -> None:
    """With its optimizer's state; what lies beside it is enough, alone as well."""
    newest = run_folder / "checkpoints" / "step-00000003.pt"
    expected = load_encoder(newest)(wav())
    newest.write_bytes(b"")
    export_encoder(newest, tmp_path / "encoder")
    beside = newest.with_name("step-00000003.encoder.safetensors")
    for path in (newest, run_folder, tmp_path / "encoder", beside):
        assert torch.equal(load_encoder(path)(wav()), expected)
    alone = beside.rename(tmp_path / "alone.safetensors")
    assert torch.equal(load_encoder(alone)(wav()), expected)
    assert export_encoder(alone, tmp_path / "again").exists()
