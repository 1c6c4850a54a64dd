"""Runs on a small LibriSpeech with HuBERT as offline task, with and without the cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from m2dx_hubert import HuBERT
from m2dx_hubert.sample import write_sample
from safetensors.torch import load_file

import m2dx

Metrics = Callable[[Path], list[dict[str, Any]]]
RECIPE = """
output: runs
data:
  sets:
    speech: {dataset: {name: librispeech, path: LibriSpeech, subsets: [train-clean-100]}}
  mean: -7.0
  std: 4.0
  workers: 0
noise:
  ratio: 0.2
  mean: -7.0
  source: {name: coloured}
audio: {crop_seconds: 1.28}
model:
  size: tiny
  depth: 1
  patch_size: [80, 4]
  mask_ratio: 0.6
  predictor: {embed_dim: 24, depth: 1, num_heads: 2}
tasks:
  hubert:
    offline_encoder: {name: hubert, layer: 1, weights: random}
    online_mapper: {name: linear}
    loss: {name: norm_mse}
    target_frames: tokens
    weight: 0.5
train: {epochs: 2, warmup_epochs: 0, batch_size: 8, base_lr: 0.01, device: cpu, threads: 1, log_every: 1}
"""
"""Eight clips, of which two are shorter than the crop; one step an epoch."""
EVALUATION = """
evaluation:
  tasks: {speaker: {dataset: {name: csv, path: speakers.csv}, unit_seconds: 1.28}}
  evaluators: {knn: {name: knn}}
"""
CACHED = RECIPE.replace("weights: random", "weights: random, cache: features")


@pytest.fixture
def folder(tiny: None, tmp_path: Path) -> Path:
    """A LibriSpeech, recipes beside, and a list of its files by speaker."""
    root = write_sample(tmp_path, clips=8, subsets=("train-clean-100",), seconds=(1.0, 4.0))
    (tmp_path / "plain.yaml").write_text(RECIPE)
    (tmp_path / "cached.yaml").write_text(CACHED)
    (tmp_path / "evaluated.yaml").write_text(CACHED + EVALUATION)
    lines = ["path,label,split"]
    for speaker in sorted((root / "train-clean-100").iterdir()):
        for number, file in enumerate(sorted(speaker.glob("*/*.flac"))):
            lines.append(f"{file},{speaker.name},{('train', 'test')[number % 2]}")
    (tmp_path / "speakers.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def run(
    folder: Path, command: Callable[..., str], make_host: Callable[[str], m2dx.PluginHost], no_page: None
) -> Callable[..., Path]:
    """Trains with a recipe of the folder, and gives the folder of the run."""

    def run(recipe_file: str, *arguments: str, name: str | None = None) -> Path:
        name = name or Path(recipe_file).stem
        given = [f"output={folder / 'runs'}", f"name={name}", "train.checkpoint_every=1", *arguments]
        command("train", str(folder / recipe_file), *given, host=make_host("hubert"))
        return folder / "runs" / name

    return run


def test_train_resume_export_and_evaluate(
    folder: Path, run: Callable[..., Path], metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("evaluated.yaml")
    whole = metrics(first)
    assert [line["step"] for line in whole] == [1, 2] and all(0 < line["loss_hubert"] < 4 for line in whole)
    cached = {path: path.stat().st_mtime_ns for path in (folder / "features").rglob("*.npy")}
    assert len(cached) == 8
    state = torch.load(first / "checkpoints" / "step-00000001.pt", weights_only=True)["model"]
    assert state["tasks.hubert.online_mapper.linear.weight"].shape == (32, 192)
    assert not any("offline_encoder" in name for name in state)
    weights = load_file(first / "encoder" / "model.safetensors")
    (first / "checkpoints" / "step-00000002.pt").unlink()
    (first / "scores.json").unlink()
    calls: list[tuple[int, ...]] = []
    encode = HuBERT.encode

    def counted(self: HuBERT, wav: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(wav.shape))
        return encode(self, wav)

    monkeypatch.setattr(HuBERT, "encode", counted)
    run("evaluated.yaml", "--resume")
    assert metrics(first) == whole
    assert calls == [(2, 20_480)]  # the trial before training
    assert {path: path.stat().st_mtime_ns for path in (folder / "features").rglob("*.npy")} == cached
    resumed = load_file(first / "encoder" / "model.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in weights.items())
    encoder = m2dx.load_encoder(first / "encoder")
    assert encoder(torch.zeros(1, 16_000)).shape[-1] == encoder.embed_dim
    assert '"speaker"' in (first / "scores.json").read_text()


def test_a_filled_cache_gives_the_same_run_as_an_empty_one_and_nearly_the_one_without(
    run: Callable[..., Path], metrics: Metrics
) -> None:
    cold = metrics(run("cached.yaml", name="cold"))
    warm = metrics(run("cached.yaml", "data.workers=2", name="warm"))
    without = metrics(run("plain.yaml"))
    assert [line["step"] for line in cold] == [1, 2]
    assert cold == warm
    assert without[0]["loss_m2d"] == cold[0]["loss_m2d"]
    assert without[0]["loss_hubert"] == pytest.approx(cold[0]["loss_hubert"], abs=0.1)
    assert without[0]["loss_hubert"] != cold[0]["loss_hubert"]
