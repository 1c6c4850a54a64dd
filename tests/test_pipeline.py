"""The main job, from a recipe to a run's folder."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from m2dx.encoder import load_encoder
from m2dx.pipeline import encoders_to_compare, report_of_run, run_recipe
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.training.trainer import Trainer

EVALUATION = (
    "evaluation={{tasks: {{notes: {{dataset: {{name: csv, path: {}}}, unit_seconds: 0.32}}}}, "
    "evaluators: {{knn: {{name: knn}}}}, baselines: [random_weights, mean_logmel]}}"
)


@pytest.fixture
def few_notes(sounds: Path, tmp_path: Path) -> Path:
    """A list of 60 notes: 10 of each split and of two instruments."""
    lines = (sounds / "instrument.csv").read_text().splitlines()
    kept = [lines[0]]
    for split in ("train", "valid", "test"):
        for label in ("bass", "flute"):
            kept += [f"{sounds}/{line}" for line in lines[1:] if f",{label},{split}," in line][:10]
    path = tmp_path / "few.csv"
    path.write_text("\n".join(kept) + "\n")
    return path


def test_the_whole_job(tiny_recipe: Any, host: Any, console: Console, few_notes: Path) -> None:
    recipe = tiny_recipe(
        "train.epochs=0.6",
        "data.mean=null",
        "data.std=null",
        EVALUATION.format(few_notes),
        labels=True,
        noise=True,
    )
    summary = run_recipe(recipe, host, console)
    assert summary.steps == 3 and summary.stopped_by is None
    folder = recipe.output / recipe.name
    names = {path.name for path in folder.iterdir()}
    assert {"recipe.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "summary.json"} < names
    assert {"scores.json", "report.html", "encoder"} < names
    resolved = load_recipe(folder / "recipe.yaml", host=host)
    encoder = load_encoder(folder / "encoder")
    assert (resolved.data.mean, resolved.data.std) == (encoder.mean, encoder.std)
    measured = {"mean": encoder.mean, "std": encoder.std}
    given = recipe_to_mapping(recipe)
    assert recipe_to_mapping(resolved) == {**given, "data": {**given["data"], **measured}}
    content = json.loads((folder / "summary.json").read_text())
    assert content["steps"] == content["total_steps"] == 3 and content["bad_files"] == 0
    assert content["stopped_by"] is None and content["device"] == "cpu x 1"
    text = console.export_text()
    for part in ("notes: 11 classes", "log-mel mean", "trained 3 of 3 steps", "pretrained", "random_weights"):
        assert part in text, part
    report_of_run(folder, host, console)
    with torch.no_grad():
        makers = encoders_to_compare(resolved, encoder)
        assert list(makers) == ["pretrained", "random_weights", "mean_logmel"]
        wav = torch.randn(1, 8000)
        assert makers["pretrained"](1) is encoder
        features = [makers["random_weights"](seed).clip(wav) for seed in (0, 0, 1)]
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])


def test_a_stopped_job_is_not_evaluated_but_goes_on(
    tiny_recipe: Any, host: Any, console: Console, few_notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("train.epochs=0.8", EVALUATION.format(few_notes))
    folder = recipe.output / recipe.name
    train_step = Trainer.train_step

    def stopping(self: Trainer, batches: Any) -> Any:
        result = train_step(self, batches)
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        summary = run_recipe(recipe, host, console)
    assert summary.stopped_by == "SIGTERM" and summary.steps == 2
    assert not (folder / "scores.json").exists() and not (folder / "encoder").exists()
    assert json.loads((folder / "summary.json").read_text())["stopped_by"] == "SIGTERM"
    assert run_recipe(recipe, host, console, resume=True).steps == 4
    assert (folder / "scores.json").exists() and (folder / "encoder" / "config.json").exists()
