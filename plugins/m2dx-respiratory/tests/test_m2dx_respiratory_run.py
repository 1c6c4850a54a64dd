"""From the command line: pre-train on ICBHI 2017's layout with noise, resume, export, evaluate on its cycles."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from m2dx_respiratory.sample import write_sample
from typer.testing import CliRunner

from m2dx.cli import app

RECIPE = """
name: lungs
data:
  sets:
    lungs: {dataset: {name: icbhi, path: "${ICBHI}"}, split: train}
  epoch_size: 8
  mean: -7.0
  std: 4.0
  workers: 0
  short_clips: repeat
noise: {ratio: 0.3, mean: -6.0, source: {name: coloured}}
audio: {crop_seconds: 0.64}
model:
  size: tiny
  depth: 1
  patch_size: [16, 4]
  predictor: {embed_dim: 24, depth: 1, num_heads: 2}
train: {epochs: 1, warmup_epochs: 0, batch_size: 4, device: cpu, threads: 1, log_every: 1}
evaluation:
  tasks:
    cycles:
      dataset: {name: icbhi, path: "${ICBHI}", unit: cycles}
      unit_seconds: 1.28
      shared_groups: warn
    events:
      dataset: {name: sprsound, path: "${SPRSOUND}", unit: events}
      unit_seconds: 1.28
  evaluators:
    finetuned: {name: icbhi, epochs: 1, batch_size: 16, accumulate: 2}
  baselines: [mean_logmel]
  seeds: [0, 1]
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command of m2dx with this plugin, installed or not, and gives what it prints."""
    if not importlib.metadata.entry_points(group="m2dx", name="respiratory"):
        info = tmp_path / "site" / "m2dx_respiratory-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: m2dx-respiratory\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[m2dx]\nrespiratory = m2dx_respiratory\n")
        monkeypatch.syspath_prepend(info.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M2DX_PLUGINS", "respiratory")
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("ICBHI", str(tmp_path / "data" / "icbhi"))
    monkeypatch.setenv("SPRSOUND", str(tmp_path / "data" / "sprsound"))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return run


@pytest.mark.usefixtures("no_page")
def test_the_whole_way_from_recordings_to_scores(
    command: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_sample(tmp_path / "data", clips=12)
    (tmp_path / "lungs.yaml").write_text(RECIPE)
    pretrain_only = "evaluation.tasks={}"
    run = tmp_path / "runs" / "lungs"

    told = command("train", "lungs.yaml", pretrain_only)
    assert "missing: lungs: recordings matched with the split file by the first four parts" in told
    command("train", "lungs.yaml", pretrain_only, "train.epochs=2", "--resume")
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    command("export", str(run), "exported")

    told = command("evaluate", "exported", "lungs.yaml")
    assert "score (best epoch on" in told and "optimistic)" in told
    assert "group '156'" in caplog.text  # the patient on both sides of the split, whom the recipe allows
    (path,) = (run / "evaluation").glob("*/scores.json")
    scores = json.loads(path.read_text())
    for encoder, trained, remarks in (
        ("pretrained", "whole network", ("", " (best epoch on test, optimistic)")),
        ("mean_logmel", "linear layer", (" (linear layer only)",)),
    ):
        names = [name + remark for remark in remarks for name in ("specificity", "sensitivity", "score")]
        for task, clips in (("cycles", 48), ("events", 21)):
            mine = [row for row in scores if (row["encoder"], row["task"]) == (encoder, task)]
            assert [row["metric"] for row in mine] == names
            for row in mine:
                assert row["protocol"] == "finetuned" and row["details"]["trained"] == trained
                assert len(row["values"]) == 2 and row["ci95"] is not None
                assert row["details"]["clips"] == clips and 0 <= row["mean"] <= 1
