"""Runs with a teacher: what a checkpoint keeps, resuming, and a whole chain of runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from m2dx_teacher.sample import write_encoder, write_sample
from safetensors.torch import load_file

import m2dx

Metrics = Callable[[Path], list[dict[str, Any]]]
EVALUATION = """
extends: recipe.yaml
evaluation:
  tasks: {pitch: {dataset: {name: csv, path: pitch.csv}, unit_seconds: 0.64}}
  evaluators: {knn: {name: knn}}
  baselines: [mean_logmel]
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """The sample, with labelled stretches of its files to evaluate on."""
    folder = write_sample(tmp_path / "sample")
    lines = ["path,start,duration,label,split"]
    for number in range(6):
        for start, split in enumerate(("train", "train", "test")):
            label = "low" if number < 3 else "high"
            lines.append(f"audio/{number:05d}.wav,{start},1,{label},{split}")
    (folder / "pitch.csv").write_text("\n".join(lines))
    (folder / "scored.yaml").write_text(EVALUATION)
    return folder


@pytest.fixture
def run(
    sample: Path,
    command: Callable[..., str],
    make_host: Callable[[str], m2dx.PluginHost],
    metrics: Metrics,
    no_page: None,
) -> Callable[..., Path]:
    """Trains six steps with the sample's recipe, and gives the folder of the run."""

    def run(*arguments: str, recipe_file: str = "recipe.yaml", name: str = "recipe") -> Path:
        given = [f"output={sample / 'runs'}", f"name={name}", "train.epochs=3", "data.workers=0", *arguments]
        command("train", str(sample / recipe_file), *given, host=make_host("teacher"))
        folder = sample / "runs" / name
        assert [line["step"] for line in metrics(folder)] == [1, 2, 3, 4, 5, 6]
        return folder

    return run


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}.pt"


def test_a_run_goes_on_with_the_same_losses_without_the_teacher_in_its_checkpoints(
    run: Callable[..., Path], metrics: Metrics
) -> None:
    folder = run("train.checkpoint_every=4")
    whole, state = metrics(folder), torch.load(checkpoint(folder, 4), weights_only=True)["model"]
    assert "tasks.teacher.online_mapper.linear.weight" in state
    assert [key for key in state if "offline_encoder" in key] == []
    checkpoint(folder, 6).unlink()
    assert metrics(run("train.checkpoint_every=4", "--resume")) == whole


def test_a_run_follows_its_teacher(sample: Path, run: Callable[..., Path], metrics: Metrics) -> None:
    """The loss falls over some steps, and depends on whose features are learned."""
    lines = metrics(run())
    assert lines[-1]["loss_teacher"] < 0.9 * lines[0]["loss_teacher"]
    write_encoder(sample / "other", seed=1)
    other = run(f"tasks.teacher.offline_encoder.weights={sample / 'other'}", name="other")
    assert metrics(other)[0]["loss_m2d"] == lines[0]["loss_m2d"]
    assert metrics(other)[0]["loss_teacher"] != lines[0]["loss_teacher"]


def test_a_teacher_of_another_rate_grid_and_length(
    sample: Path, run: Callable[..., Path], metrics: Metrics
) -> None:
    """The teacher's 4 frames of 16 come to the 34 of 40 ms that a crop of 1.36 s has; two pieces for the teacher."""
    write_encoder(sample / "teacher", sample_rate=32_000)
    folder = run("model.patch_size=[80, 4]", "audio.crop_seconds=1.36", "init_from=null")
    mapper = torch.load(checkpoint(folder, 6), weights_only=True)["model"][
        "tasks.teacher.online_mapper.linear.weight"
    ]
    assert mapper.shape == (5 * 192, 192)
    assert all(0 < line["loss_teacher"] < 4 for line in metrics(folder))


def test_a_missing_teacher_is_told_with_its_task(run: Callable[..., Path]) -> None:
    with pytest.raises(m2dx.CheckpointError, match=r"tasks\.teacher\.offline_encoder.*gone: no such file"):
        run("tasks.teacher.offline_encoder.weights=gone")


def test_from_one_run_to_the_next(run: Callable[..., Path], metrics: Metrics) -> None:
    """M2D alone; a second run with it as teacher, from its export; going on, export, evaluation."""
    first = run("tasks.teacher=null", "init_from=null", name="first")
    options = [f"tasks.teacher.offline_encoder.weights={first}", f"init_from={first / 'encoder'}"]
    options += ["train.checkpoint_every=3"]
    second = run(*options, recipe_file="scored.yaml", name="second")
    whole, weights = metrics(second), load_file(second / "encoder" / "model.safetensors")
    checkpoint(second, 6).unlink()
    (second / "scores.json").unlink()
    run(*options, "--resume", recipe_file="scored.yaml", name="second")
    assert metrics(second) == whole
    resumed = load_file(second / "encoder" / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
    scores = json.loads((second / "scores.json").read_text())
    assert {score["task"] for score in scores} == {"pitch"}
