"""Callbacks: those that listen cannot change a run, and those that change it are a part of it."""

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import m2dx
from m2dx.contract.errors import PluginError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.encoder.checkpoint import CheckpointFolder, read_checked
from m2dx.jobs import core
from m2dx.training.callbacks import Callbacks
from m2dx.training.distributed import Processes

EVENTS: list[tuple[str, Any]] = []


class Rude(m2dx.Callback):
    """Draws from every generator, writes into what it is given, and fails."""

    name = "rude"

    def start(self, recipe: Any, folder: Path, step: int) -> None:
        EVENTS.append(("start", step))
        recipe["train"]["base_lr"] = 9.0
        torch.manual_seed(1)

    def metrics(self, line: Any) -> None:
        EVENTS.append(("metrics", line["step"]))
        torch.rand(3)
        np.random.rand(3)  # noqa: NPY002
        random.random()
        line.clear()
        raise SystemExit("no such board")

    def checkpoint(self, step: int, path: Path) -> None:
        EVENTS.append(("checkpoint", path.is_file() and step))

    def end(self, summary: Any) -> None:
        EVENTS.append(("end", summary["steps"]))
        summary.clear()


class Changing(m2dx.Callback):
    """Shifts a weight, and ends the training.

    Options:
        last: step after which it does
        fails: in after_step
    """

    name = "changing"
    changes = True

    def __init__(self, *, last: int = 99, fails: bool = False) -> None:
        self.last, self.fails, self.seen = last, fails, list[int]()

    def after_step(self, model: Any, step: int, total_steps: int) -> None:
        self.seen.append(step)
        if self.fails:
            raise SystemExit("no such weight")
        with torch.no_grad():
            model.online.cls_token.mul_(1.0 + 0.01 * len(self.seen))

    def stop(self) -> str | None:
        return "enough" if len(self.seen) >= self.last else None

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Any) -> None:
        self.seen = list(state["seen"])


@pytest.fixture(scope="module")
def host() -> PluginHost:
    plugin = SimpleNamespace(callbacks=m2dx.hookimpl(lambda: [Rude, Changing]))
    return PluginHost({"m2dx": core, "acme": plugin})


def newest(trainer: Any) -> dict[str, Any]:
    path = CheckpointFolder(trainer.run.folder / "checkpoints").newest()
    assert path is not None
    return read_checked(path)


def test_a_listener_that_misbehaves_changes_nothing(
    tiny_recipe: Callable[..., Any], make_trainer: Any, read_metrics: Any, caplog: pytest.LogCaptureFixture
) -> None:
    EVENTS.clear()
    few = ["train.epochs=0.8", "train.warmup_epochs=0", "train.checkpoint_every=2"]
    plain = make_trainer(tiny_recipe("name=plain", *few))
    plain.fit()
    numpy_state, python_state = np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[union-attr]  # noqa: NPY002
    rude = make_trainer(tiny_recipe("name=rude", "train.callbacks={board: rude}", *few))
    summary = rude.fit()
    assert read_metrics(plain.run.folder) == read_metrics(rude.run.folder)
    one, other = newest(plain), newest(rude)
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    assert torch.equal(one["rng"][0], other["rng"][0]) and other["callbacks"] == {}
    assert np.random.get_state()[1].tolist() == numpy_state  # type: ignore[union-attr]  # noqa: NPY002
    assert random.getstate() == python_state
    assert EVENTS == [
        ("start", 0),
        ("metrics", 1),
        ("metrics", 2),
        ("checkpoint", 2),
        ("metrics", 3),
        ("metrics", 4),
        ("checkpoint", 4),
        ("end", 4),
    ]
    assert summary.failed_callbacks == 4 and summary.steps == 4
    text = "train.callbacks.board: metrics failed: SystemExit: no such board. Training goes on (1 calls have failed)"
    assert [record.message for record in caplog.records if "callbacks" in record.message] == [text]


def test_one_that_changes_the_training_ends_it_at_the_same_step_when_resumed(
    tiny_recipe: Callable[..., Any], make_trainer: Any, console: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def train(name: str, *overrides: str, steps: int = 10, resume: bool = False) -> Any:
        changing = "train.callbacks={shift: {name: changing, last: 7}}"
        trainer = make_trainer(tiny_recipe(f"name={name}", changing, *overrides), resume=resume)
        trainer.total_steps = steps
        return trainer, trainer.fit()

    whole, summary = train("whole")
    assert (summary.steps, summary.stopped_by) == (7, None)
    assert "ended after step 7 by train.callbacks.shift: enough" in console.export_text()
    assert newest(whole)["step"] == 7 and newest(whole)["callbacks"] == {"shift": {"seen": [*range(1, 8)]}}
    assert train("parts", steps=4)[1].steps == 4
    parts, summary = train("parts", resume=True)
    assert summary.steps == 7
    assert all(
        torch.equal(value, newest(parts)["model"][name]) for name, value in newest(whole)["model"].items()
    )
    assert train("parts", resume=True)[1].steps == 7  # ends at once
    assert not caplog.records
    train("parts", "train.callbacks.other=changing", resume=True)
    assert "train.callbacks.other starts anew: the checkpoint has nothing of it" in caplog.text


def test_what_one_raises_that_changes_the_training_ends_it(
    tiny_recipe: Callable[..., Any], make_trainer: Any
) -> None:
    trainer = make_trainer(tiny_recipe("train.callbacks={shift: {name: changing, fails: true}}"))
    with pytest.raises(
        PluginError, match=r"train\.callbacks\.shift: after_step failed: SystemExit: no such weight"
    ):
        trainer.fit()


@pytest.mark.parametrize(
    ("state", "problem"), [({"f": lambda: 0}, ".*pickle"), (None, "it must be a dict, but is None")]
)
def test_a_state_that_no_checkpoint_can_hold_ends_the_run_at_its_start(
    tiny_recipe: Callable[..., Any],
    make_trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
    state: Any,
    problem: str,
) -> None:
    monkeypatch.setattr(Changing, "state_dict", lambda self: state)
    trainer = make_trainer(tiny_recipe("train.callbacks={shift: changing}"))
    text = rf"train\.callbacks\.shift: state_dict must give tensors and plain data: {problem}"
    with pytest.raises(PluginError, match=text):
        trainer.fit()
    assert trainer.step == 0


def test_other_processes_hear_nothing_but_steps_and_shards_are_refused(
    tiny_recipe: Callable[..., Any], host: PluginHost
) -> None:
    EVENTS.clear()
    second = Processes(1, 2, torch.device("cpu"))
    train = tiny_recipe("train.callbacks={board: rude, shift: changing}").train
    callbacks = Callbacks(train, host, second)
    callbacks.notify("start", {}, Path(), 0)
    callbacks.after_step(SimpleNamespace(online=SimpleNamespace(cls_token=torch.ones(1))), 1, 2)  # type: ignore[arg-type]
    assert EVENTS == [] and callbacks.state_dict() == {"shift": {"seen": [1]}}
    sharded = train.model_copy(update={"sharding": "fsdp"})
    with pytest.raises(
        RecipeError, match=r"callbacks\.shift changes the training.*; set train\.sharding=none"
    ):
        Callbacks(sharded, host, second)
