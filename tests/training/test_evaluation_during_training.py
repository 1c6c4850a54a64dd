"""A run whose checkpoints are scored while it trains."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

import m2dx
from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.encoder.checkpoint import CheckpointFolder, encoder_file, read_checked
from m2dx.jobs import core
from m2dx.jobs.background_scoring import BackgroundScoring
from m2dx.jobs.evaluation_process import score_checkpoint
from m2dx.jobs.train import run_recipe
from m2dx.recipe.schema import Recipe
from m2dx.results.scores import read_step_scores
from m2dx.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
QUICK = (
    "import json, sys; line = {'step': int(sys.argv[1]), 'task': 'notes', 'protocol': 'knn', "
    "'metric': 'accuracy', 'mean': 0.5}; "
    "print(json.dumps(line), file=open(sys.argv[2] + '/scores_by_step.jsonl', 'a'))"
)


pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture
def recipe_with(tiny_recipe: Any, sounds: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe of 10 steps with a checkpoint every second step, and a task of 60 notes."""
    lines = (sounds / "instrument.csv").read_text().splitlines()
    kept = [lines[0]]
    for split in ("train", "valid", "test"):
        for label in ("bass", "flute"):
            kept += [f"{sounds}/{line}" for line in lines[1:] if f",{label},{split}," in line][:10]
    (tmp_path / "few.csv").write_text("\n".join(kept) + "\n")
    task = f"{{dataset: {{name: csv, path: {tmp_path / 'few.csv'}}}, unit_seconds: 0.32}}"

    def make(*overrides: str, **options: Any) -> Recipe:
        evaluation = f"evaluation={{tasks: {{notes: {task}}}, evaluators: {{knn: {{name: knn}}}}}}"
        own = ("train.checkpoint_every=2", "train.keep_last=1", "evaluation.baselines=[mean_logmel]")
        recipe: Recipe = tiny_recipe(evaluation, *own, *overrides, **options)
        return recipe

    return make


def run_by(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a script take the place of the process that scores; it is given the step and the run's folder."""

    def command(self: BackgroundScoring, step: int, checkpoint: Path) -> list[str]:
        return [sys.executable, "-S", "-c", script, str(step), str(self.run)]

    monkeypatch.setattr(BackgroundScoring, "command", command)


def steps_of(folder: Path) -> list[int]:
    return [found.step for found in read_step_scores(folder).scores]


def assert_same_training(one: Path, other: Path, read_metrics: Any) -> None:
    assert read_metrics(one) == read_metrics(other)
    states = []
    for folder in (one, other):
        newest = CheckpointFolder(folder / "checkpoints").newest()
        assert newest is not None
        states.append(read_checked(newest))
    for part in ("model", "optimizer"):
        for left, right in zip(*(tensors_of(state[part]) for state in states), strict=True):
            assert torch.equal(left, right)
    assert torch.equal(states[0]["rng"][0], states[1]["rng"][0])


def tensors_of(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    children = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return [tensor for child in children for tensor in tensors_of(child)]


def test_scores_on_the_way_change_nothing_of_the_run(
    recipe_with: Any, host: Any, console: Console, monkeypatch: pytest.MonkeyPatch, read_metrics: Any
) -> None:
    run_by(QUICK, monkeypatch)
    plain, scored = recipe_with("name=plain"), recipe_with("name=scored", "evaluation.every=4")
    for recipe in (plain, scored):
        run_recipe(recipe, host, console)
    one, other = (recipe.output / recipe.name for recipe in (plain, scored))
    assert_same_training(one, other, read_metrics)
    assert steps_of(other) == [4, 8, 10] and not (one / "scores_by_step.jsonl").exists()
    assert (one / "scores.json").read_text() == (other / "scores.json").read_text()
    final = read_step_scores(other).scores[-1]
    pretrained = json.loads((other / "scores.json").read_text())[0]
    assert pretrained["encoder"] == "pretrained" and final.score.mean == pretrained["mean"]
    assert list(final.score.values) == pretrained["values"] and final.score.metric == "accuracy"
    assert json.loads((other / "summary.json").read_text())["failed_evaluations"] == 0
    run_recipe(recipe_with("name=scored"), host, console, overwrite=True)
    assert not (other / "scores_by_step.jsonl").exists() and not (other / "scores_by_step").exists()


def test_failing_evaluations_only_warn(
    recipe_with: Any, host: Any, console: Console, monkeypatch: pytest.MonkeyPatch, read_metrics: Any
) -> None:
    run_by("import sys; sys.exit('error: out of luck')", monkeypatch)
    recipe = recipe_with("evaluation.every=2")
    summary = run_recipe(recipe, host, console)
    folder = recipe.output / recipe.name
    assert summary.steps == 10 and summary.stopped_by is None and steps_of(folder) == [10]
    assert json.loads((folder / "summary.json").read_text())["failed_evaluations"] == 4
    counts = [line["failed_evaluations"] for line in read_metrics(folder) if "failed_evaluations" in line]
    assert counts == sorted(counts) and all(0 < count <= 4 for count in counts)
    assert (folder / "scores.json").exists()


def test_a_stop_leaves_the_scores_for_the_resumed_run(
    recipe_with: Any, host: Any, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_with("evaluation.every=2")
    folder, train_step = recipe.output / recipe.name, Trainer.train_step

    def stopping(self: Trainer, batches: Any) -> Any:
        result = train_step(self, batches)
        if self.step == 7:
            signal.raise_signal(signal.SIGTERM)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        run_by("import time; time.sleep(600)", patch)
        assert run_recipe(recipe, host, console).stopped_by == "SIGTERM"
    assert "not scored yet: steps 2, 4 and 6; --resume scores them" in console.export_text()
    assert steps_of(folder) == [] and CheckpointFolder(folder / "checkpoints").steps() == [7]
    run_by(QUICK, monkeypatch)
    assert run_recipe(recipe, host, console, resume=True).stopped_by is None
    assert steps_of(folder) == [2, 4, 6, 8, 10]


class Patient(m2dx.Callback):
    """Ends the training where a score is worse than the one before."""

    name = "patient"
    changes = True

    def __init__(self) -> None:
        self.means: list[float] = []

    def scores(self, step: int, scores: Any) -> None:
        self.means += [score.mean for score in scores]

    def stop(self) -> str | None:
        return f"{self.means}" if sorted(self.means) != self.means else None

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means}

    def load_state_dict(self, state: Any) -> None:
        self.means = list(state["means"])


def test_a_training_waits_for_scores_that_may_end_it_also_when_resumed(
    recipe_with: Any, host: Any, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = SimpleNamespace(callbacks=m2dx.hookimpl(lambda: [Patient]))
    host = PluginHost({"m2dx": core, "acme": plugin})
    falling = QUICK.replace("0.5", "{'2': 0.5, '4': 0.7, '6': 0.6, '8': 0.5}[sys.argv[1]]")
    fields = ["evaluation.every=2", "train.callbacks={stop: patient}"]
    run_by(falling, monkeypatch)
    whole = recipe_with("name=whole", *fields, with_host=host)
    summary = run_recipe(whole, host, console)
    assert (summary.steps, summary.stopped_by) == (6, None)
    assert steps_of(whole.output / "whole") == [2, 4, 6]
    assert "ended after step 6 by train.callbacks.stop: [0.5, 0.7, 0.6]" in console.export_text()
    parts = recipe_with("name=parts", *fields, with_host=host)
    with monkeypatch.context() as patch:  # a signal comes while it waits for the scores of step 4
        slow = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"
        run_by(f"import sys\nif sys.argv[1] == '4': {slow}\n{falling}", patch)
        assert run_recipe(parts, host, console).stopped_by == "SIGTERM"
    assert CheckpointFolder(parts.output / "parts" / "checkpoints").steps() == [4]
    assert steps_of(parts.output / "parts") == [2]
    assert run_recipe(parts, host, console, resume=True).steps == 6
    states = [
        read_checked(CheckpointFolder(whole.output / name / "checkpoints").file(6))
        for name in ("whole", "parts")
    ]
    for left, right in zip(*(tensors_of(state["model"]) for state in states), strict=True):
        assert torch.equal(left, right)
    assert states[0]["callbacks"] == states[1]["callbacks"] == {"stop": {"means": [0.5, 0.7]}}
    assert run_recipe(parts, host, console, resume=True).steps == 6  # hears the last score again


def test_a_stop_while_the_rest_is_scored(
    recipe_with: Any, host: Any, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is not over then: it is evaluated when it is resumed."""
    recipe = recipe_with("evaluation.every=4")
    folder = recipe.output / recipe.name
    finish = BackgroundScoring.finish

    def interrupted(self: BackgroundScoring) -> Any:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return finish(self)

    with monkeypatch.context() as patch:
        run_by("import time; time.sleep(600)", patch)
        patch.setattr(BackgroundScoring, "finish", interrupted)
        summary = run_recipe(recipe, host, console)
    assert (summary.steps, summary.stopped_by) == (10, "SIGTERM") and not (folder / "scores.json").exists()
    assert json.loads((folder / "summary.json").read_text())["stopped_by"] == "SIGTERM"
    run_by(QUICK, monkeypatch)
    assert run_recipe(recipe, host, console, resume=True).stopped_by is None
    assert (folder / "scores.json").exists() and steps_of(folder) == [4, 8, 10]


def test_the_process_scores_the_checkpoint_alone(recipe_with: Any, host: Any, console: Console) -> None:
    """Without baselines, with the step in its records; what it does, in this process."""
    recipe = recipe_with("train.keep_last=3")
    run_recipe(recipe, host, console)
    folder = recipe.output / recipe.name
    checkpoint = CheckpointFolder(folder / "checkpoints").file(8)
    score_checkpoint(8, encoder_file(checkpoint), folder, device="cpu", threads=1)
    assert [(found.step, *found.column[:2]) for found in read_step_scores(folder).scores] == [
        (8, "notes", "knn")
    ]
    records = [json.loads(line) for line in (recipe.output / "results.jsonl").read_text().splitlines()]
    assert [(record["encoder"]["name"], record["step"]) for record in records] == [
        ("tiny", None),
        ("mean_logmel", None),
        ("tiny step 8", 8),
    ]
    assert records[2]["encoder"]["path"] == str(checkpoint)
    assert records[2]["encoder"]["sha256"] != records[0]["encoder"]["sha256"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["evaluation.every=3"],
            r"evaluation.every must be a multiple of train.checkpoint_every \(2\).*but is 3",
        ),
        (["evaluation.every=2", "evaluation.tasks=null"], "there must be tasks to score, but there are none"),
        (["evaluation.every=0"], "evaluation.every"),
        (["evaluation.device=gpu"], "evaluation.device"),
    ],
)
def test_what_cannot_be_is_refused(recipe_with: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_with(*overrides)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_device_that_is_not_there_is_told_before_training(
    recipe_with: Any, host: Any, console: Console
) -> None:
    recipe = recipe_with("evaluation.every=2", "evaluation.device=cuda")
    with pytest.raises(RecipeError, match=r"evaluation\.device is cuda, but torch sees no GPU"):
        run_recipe(recipe, host, console)
    assert not recipe.output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_from_the_command_line(recipe_with: Any, tmp_path: Path, processes: int, read_metrics: Any) -> None:
    """Processes of m2dx score; under torchrun, those of the first process alone."""
    recipe = recipe_with()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "M2DX_PLUGINS": ""}
    launcher = [
        sys.executable,
        "-m",
        *([] if processes == 1 else ["torch.distributed.run", "--nproc-per-node=2"]),
    ]
    launcher += ["m2dx"] if processes == 1 else ["-m", "m2dx"]
    task = (
        f"evaluation.tasks.notes={{dataset: {{name: csv, path: {tmp_path / 'few.csv'}}}, unit_seconds: 0.32}}"
    )
    changes = ["train.checkpoint_every=2", "train.keep_last=1", task, "evaluation.evaluators.knn={name: knn}"]
    for name, own in (("plain", []), ("scored", ["evaluation.every=4"])):
        command = [*launcher, "train", "tiny.yaml", f"name={name}", *changes, *own]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
    one, other = (tmp_path / "runs" / name for name in ("plain", "scored"))
    assert_same_training(one, other, read_metrics)
    assert steps_of(other) == [4, 8, 10], done.stdout + done.stderr
    assert recipe.output == tmp_path / "runs"
    records = [json.loads(line) for line in (recipe.output / "results.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["step"] is not None] == [4, 8]
