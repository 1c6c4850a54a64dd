"""The main job, from a recipe to a run's folder."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from m2dx.contract.errors import CheckpointError, RecipeError, TrainingError
from m2dx.encoder.audio import load_encoder, random_encoder
from m2dx.evaluation.knn import Knn
from m2dx.jobs.check import check_recipe
from m2dx.jobs.train import report_of_run, run_recipe
from m2dx.model.multitask import MultiTask
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.results.scoring import encoders_to_compare, folder_of_encoder
from m2dx.training.trainer import Trainer

EVALUATION = (
    "evaluation={{tasks: {{notes: {{dataset: {{name: csv, path: {}}}, unit_seconds: 0.32}}}}, "
    "evaluators: {{knn: {{name: knn}}}}, baselines: [random_weights, mean_logmel]}}"
)


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
    assert content["stopped_by"] is None and (content["device"], content["processes"]) == ("cpu", 1)
    text = console.export_text()
    for part in ("notes: 11 classes", "log-mel mean", "trained 3 of 3 steps", "pretrained", "random_weights"):
        assert part in text, part
    report_of_run(folder, host, console)
    with torch.no_grad():
        makers = encoders_to_compare(resolved, encoder, host)
        assert list(makers) == ["pretrained", "random_weights", "mean_logmel"]
        wav = torch.randn(1, 8000)
        assert makers["pretrained"](1) is encoder
        features = [makers["random_weights"](seed).clip(wav) for seed in (0, 0, 1)]
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])


@pytest.mark.usefixtures("no_page")
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


def test_what_cannot_be_evaluated_is_told_before_training(
    tiny_recipe: Any, host: Any, console: Console, few_notes: Path
) -> None:
    lines = few_notes.read_text().splitlines()
    few_notes.write_text("\n".join(line.replace(",test,", ",trial,") for line in lines) + "\n")
    recipe = tiny_recipe(EVALUATION.format(few_notes))
    for act in (run_recipe, check_recipe):
        with pytest.raises(
            RecipeError, match=r"evaluation task 'notes': `split` must be train, valid or test"
        ):
            act(recipe, host, console)
    assert not recipe.output.exists()


def test_a_failed_evaluation_leaves_the_report(
    tiny_recipe: Any, host: Any, console: Console, few_notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise TrainingError("no neighbours")

    monkeypatch.setattr(Knn, "evaluate", fail)
    recipe = tiny_recipe("train.epochs=0.6", EVALUATION.format(few_notes))
    with pytest.raises(TrainingError, match="no neighbours"):
        run_recipe(recipe, host, console)
    folder = recipe.output / recipe.name
    assert (folder / "report.html").exists() and (folder / "encoder" / "config.json").exists()


@pytest.mark.usefixtures("no_page")
def test_a_new_run_takes_the_place_of_the_old_one_when_it_is_ready(
    tiny_recipe: Any, host: Any, console: Console, few_notes: Path
) -> None:
    recipe = tiny_recipe("train.epochs=0.6", EVALUATION.format(few_notes))
    run_recipe(recipe, host, console)
    folder = recipe.output / recipe.name
    (folder / "encoder" / "mappers.safetensors").touch()  # as of a run with tasks
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*")}  # all but the lock
    # The last one is only found when the trainer is made.
    for broken in ("train.precision=fp16", "data.epoch_size=2"):
        with pytest.raises((RecipeError, TrainingError)):
            run_recipe(tiny_recipe("train.epochs=0.6", broken), host, console, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*")} == before
    run_recipe(tiny_recipe("train.epochs=0.8"), host, console, overwrite=True)
    assert not (folder / "scores.json").exists() and not (folder / "encoder" / "mappers.safetensors").exists()
    assert len(list((folder / "tensorboard").iterdir())) == 1
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-00000004.encoder.safetensors", "step-00000004.pt"]


def test_the_baseline_has_the_encoder_s_architecture(tiny_recipe: Any, host: Any) -> None:
    """Also where the recipe that evaluates it has another model."""
    recipe = tiny_recipe("train.epochs=0.6")
    other = recipe.model.model_copy(update={"depth": 3, "patch_size": (80, 4)})
    encoder = random_encoder(recipe.audio, other, mean=-7.0, std=4.0, seed=5)
    baseline: Any = encoders_to_compare(recipe, encoder, host)["random_weights"](0)
    assert baseline.encoder.size == encoder.encoder.size and baseline.encoder.grid == encoder.encoder.grid


def test_an_encoder_is_no_baseline_of_itself(tiny_recipe: Any, host: Any) -> None:
    recipe = tiny_recipe("init_from=starter", "model.depth=4")
    encoders = load_encoder("starter"), random_encoder(recipe.audio, recipe.model, mean=-7.0, std=4.0, seed=5)
    assert ["start" in encoders_to_compare(recipe, encoder, host) for encoder in encoders] == [False, True]


def test_each_encoder_s_scores_have_a_folder(tmp_path: Path) -> None:
    for name in ("a/lungs/encoder", "b/lungs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "step-00000010.pt").touch()
    base = tmp_path / "evaluation"
    names = [
        folder_of_encoder(base, tmp_path / name).name
        for name in ("a/lungs/encoder", "b/lungs", "a/lungs/encoder", "step-00000010.pt")
    ]
    assert names == ["lungs", "lungs-2", "lungs", "step-00000010"]
    assert (base / "lungs-2" / "encoder.txt").read_text().strip() == str(tmp_path / "b" / "lungs")


@pytest.mark.parametrize("name", ["2024", "a: b"])
def test_a_run_s_folder_may_have_moved(
    tiny_recipe: Any,
    host: Any,
    console: Console,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    with monkeypatch.context() as patch:
        patch.setattr("m2dx.jobs.train.write_page", lambda run: run.folder / "report.html")
        run_recipe(recipe, host, console)
    moved = (recipe.output / recipe.name).rename(tmp_path / name)
    assert report_of_run(moved, host, console) == moved / "report.html"
    assert "without pictures" not in caplog.text


def test_the_report_of_no_run_is_one_error(
    host: Any, console: Console, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CheckpointError, match=r"none must be the folder of a run, with its recipe\.yaml"):
        report_of_run(tmp_path / "none", host, console)
    assert caplog.text == ""


def test_a_check_is_as_strict_as_training(
    tiny_recipe: Any, host: Any, console: Console, make_wav: Any, tmp_path: Path
) -> None:
    for number in range(7):
        make_wav(f"data/{number}.wav", seed=number)
    (tmp_path / "data" / "bad.wav").write_text("not audio")
    data = f"data.sets.notes={{split: null, dataset: {{name: folder, path: {tmp_path / 'data'}}}}}"
    check_recipe(
        tiny_recipe(data, "data.mean=null", "data.std=null", "data.max_bad_fraction=0.2"), host, console
    )
    assert f"cannot use {tmp_path / 'data' / 'bad.wav'}: " in console.export_text()
    with pytest.raises(TrainingError, match=r"at most 5\.0% of the 8 files may be unusable"):
        check_recipe(tiny_recipe(data, "data.mean=null", "data.std=null"), host, console)
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        check_recipe(tiny_recipe("train.precision=fp16"), host, console)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("bf16", True)])
def test_a_check_computes_as_training_does(
    tiny_recipe: Any,
    host: Any,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    expected: bool,
) -> None:
    seen, forward = [], MultiTask.forward

    def note(self: MultiTask, *arguments: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return forward(self, *arguments)

    monkeypatch.setattr(MultiTask, "forward", note)
    check_recipe(tiny_recipe(f"train.precision={precision}"), host, console)
    assert set(seen) == {expected}  # also where it times steps
