"""A run that was stopped goes on as if it had not been."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import m2dx
from m2dx.errors import CheckpointError, RecipeError
from m2dx.model.mappers import PoolLinearMapper
from m2dx.plugins import PluginHost
from m2dx.training.prepare import open_run_folder
from m2dx.training.trainer import Trainer

STEPS = 12  # 5 per epoch


class DropoutMapper(PoolLinearMapper):
    """A mapper that draws from torch's own generator."""

    name = "dropout"

    def __init__(self, shapes: m2dx.TaskShapes) -> None:
        super().__init__(shapes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(self.dropout(tokens))


@pytest.fixture
def with_dropout() -> PluginHost:
    host = PluginHost.discover()
    host.register("dropout", SimpleNamespace(online_mappers=m2dx.hookimpl(lambda: [DropoutMapper])))
    return host


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Sends this process a signal when a step is done."""
    train_step = Trainer.train_step

    def stopping(self: Trainer, batches: Any) -> Any:
        result = train_step(self, batches)
        if self.step == step:
            signal.raise_signal(number)
        return result

    monkeypatch.setattr(Trainer, "train_step", stopping)


def assert_same(one: Trainer, other: Trainer) -> None:
    weights = other.model.state_dict()
    assert [
        key for key, value in one.model.state_dict().items() if not torch.equal(value, weights[key])
    ] == []
    moments = other.optimizer.state_dict()["state"]
    for index, state in one.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, moments[index][name]) for name, value in state.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_bit_by_bit(
    tiny_recipe: Any,
    make_trainer: Any,
    read_metrics: Any,
    with_dropout: PluginHost,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    """With workers, from the middle of an epoch and of a line of metrics, with noise, a task, and dropout."""
    options = [f"train.epochs={STEPS / 5}", "data.workers=2", "train.log_every=3", "train.rankme_every=3"]
    options.append("tasks.labels.online_mapper.name=dropout")
    recipes = {
        name: tiny_recipe(*options, f"name={name}", labels=True, noise=True, with_host=with_dropout)
        for name in ("whole", "stopped")
    }
    whole = make_trainer(recipes["whole"], with_host=with_dropout)
    whole.fit()

    torch.rand(7)  # whatever else the process has drawn
    first = make_trainer(recipes["stopped"], with_host=with_dropout)
    with monkeypatch.context() as patch:
        stop_after(patch, 7, number)
        summary = first.fit()
    assert (summary.steps, summary.stopped_by) == (7, number.name)
    assert first.checkpoints.steps() == [7]

    torch.rand(3)
    second = make_trainer(recipes["stopped"], resume=True, with_host=with_dropout)
    assert second.step == 7
    summary = second.fit()
    assert (summary.steps, summary.stopped_by) == (STEPS, None)
    assert read_metrics(second.run.folder) == read_metrics(whole.run.folder)
    assert [line["step"] for line in read_metrics(second.run.folder)] == [3, 6, 9, 12]
    assert_same(whole, second)


def test_losses_depend_on_the_seed(tiny_recipe: Any, make_trainer: Any, read_metrics: Any) -> None:
    """So that the equality above says something."""
    folders = []
    for seed in (0, 1):
        trainer = make_trainer(tiny_recipe("train.epochs=0.6", f"seed={seed}", f"name=seed{seed}"))
        trainer.fit()
        folders.append(trainer.run.folder)
    assert read_metrics(folders[0]) != read_metrics(folders[1])


def test_metrics_after_the_checkpoint_are_dropped(
    tiny_recipe: Any, make_trainer: Any, read_metrics: Any
) -> None:
    recipe = tiny_recipe("train.checkpoint_every=3")
    trainer = make_trainer(recipe)
    trainer.fit()
    expected, path = read_metrics(trainer.run.folder), trainer.run.folder / "metrics.jsonl"
    for step in trainer.checkpoints.steps()[1:]:
        trainer.checkpoints.file(step).unlink()  # only step 9 of 10 is left
    with path.open("a") as file:
        file.write('{"step": 11, "loss')  # cut off by a crash
    again = make_trainer(recipe, resume=True)
    assert again.step == 9
    again.fit()
    assert read_metrics(trainer.run.folder) == expected
    assert_same(trainer, again)


def test_a_finished_run_is_left_as_it_is(tiny_recipe: Any, make_trainer: Any, read_metrics: Any) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    trainer = make_trainer(recipe)
    trainer.fit()
    before = read_metrics(trainer.run.folder)
    again = make_trainer(recipe, resume=True)
    assert again.fit().steps == 3
    assert read_metrics(trainer.run.folder) == before
    assert_same(trainer, again)


def test_statistics_survive_a_resume(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are measured once, and a resumed run does not take its own measure for a change."""
    options = ["train.epochs=0.6", "data.mean=null", "data.std=null", "noise.mean=null"]
    recipe = tiny_recipe(*options, noise=True)
    trainer = make_trainer(recipe)
    trainer.fit()
    measured = trainer.run.statistics
    assert measured.mean < 0 < measured.std and measured.noise_mean < 0
    assert trainer.model.views.statistics == measured

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("m2dx.training.prepare.measure_statistics", refuse)
    monkeypatch.setattr("m2dx.training.prepare.measure_noise", refuse)
    again = make_trainer(recipe, resume=True)
    assert again.run.statistics == again.model.views.statistics == measured
    assert "has changed" not in caplog.text


def test_a_changed_recipe_is_told_and_followed(
    tiny_recipe: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(tiny_recipe("train.epochs=0.6")).fit()
    changed = tiny_recipe("train.epochs=1.2", "train.weight_decay=0.5", "train.betas=[0.5, 0.6]")
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(changed, resume=True)
    for text in ("train.epochs (0.6 -> 1.2)", "train.weight_decay (0.05 -> 0.5)", "train.betas"):
        assert text in caplog.text
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.5, 0.0]
    assert {group["betas"] for group in trainer.optimizer.param_groups} == {(0.5, 0.6)}
    assert trainer.fit().steps == 6


def test_another_model_does_not_fit(tiny_recipe: Any, make_trainer: Any) -> None:
    make_trainer(tiny_recipe("train.epochs=0.6")).fit()
    with pytest.raises(CheckpointError, match="does not fit the recipe"):
        make_trainer(tiny_recipe("train.epochs=0.6", "model.depth=2"), resume=True)


def test_nothing_to_resume_and_nothing_to_overwrite(tiny_recipe: Any, make_trainer: Any) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    with pytest.raises(RecipeError, match="has no checkpoint to resume from; train without --resume"):
        make_trainer(recipe, resume=True)
    trainer = make_trainer(recipe)
    trainer.fit()
    with pytest.raises(RecipeError, match=r"checkpoint of step 3: go on with --resume.*--overwrite"):
        make_trainer(recipe)
    assert open_run_folder(recipe, resume=False, overwrite=True) is None
    assert trainer.checkpoints.steps() == [] and not (trainer.run.folder / "metrics.jsonl").exists()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny_recipe: Any,
    make_trainer: Callable[..., Trainer],
    caplog: pytest.LogCaptureFixture,
    console: Console,
    tmp_path: Path,
) -> None:
    recipe = tiny_recipe("train.checkpoint_every=4", "train.keep_last=1", "train.keep_every=4")
    trainer = make_trainer(recipe)
    trainer.fit()
    assert trainer.checkpoints.steps() == [4, 8, 10]
    newest = trainer.checkpoints.file(10)
    newest.write_bytes(newest.read_bytes()[:-1000])
    again = make_trainer(recipe, resume=True)
    assert again.step == 8
    assert "step-00000010.pt" in caplog.text and "trying the one before it" in caplog.text
    assert "resuming from step 8" in console.export_text()
    again.fit()
    assert_same(trainer, again)
