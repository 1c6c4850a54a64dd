"""Which micro-batch is chosen, and that a run records it and goes on with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from m2dx.contract.errors import MemoryShortageError, RecipeError
from m2dx.memory import choice
from m2dx.memory.choice import Choice, choose_accumulation, largest_that_fits
from m2dx.memory.limits import Memory
from m2dx.memory.measure import Measurement, Trials
from m2dx.memory.setting import doubling, micro_batches
from m2dx.recipe.loading import load_recipe
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare


def test_micro_batches_divide_the_part_of_each_process() -> None:
    assert micro_batches(48, 2) == [1, 2, 3, 4, 6, 8, 12, 24]
    assert doubling(micro_batches(48, 2)) == [1, 2, 4, 8, 24]
    with pytest.raises(RecipeError, match=r"multiple of the number of processes \(5\), but is 48"):
        micro_batches(48, 5)


@pytest.mark.parametrize("seconds", [0.0, 3.0])
@pytest.mark.parametrize(
    ("usable", "clips"), [(1150, 1), (1250, 2), (1999, 8), (10_000, 64), (2599, 8), (2600, 16)]
)
def test_the_largest_that_fits_is_found(usable: int, clips: int, seconds: float) -> None:
    """1000 bytes, and 100 for each clip, which the estimate takes for 60."""
    tried = []

    def trial(size: int) -> Measurement:
        tried.append(size)
        return Measurement(size, True, peak=1000 + 100 * size, seconds=seconds * size)

    found = largest_that_fits([1, 2, 4, 8, 16, 32, 64], 60, usable, trial)
    assert isinstance(found, Choice) and found.clips == clips and found.used == 1000 + 100 * clips
    assert len(tried) <= 5
    assert all(size * seconds <= choice.LONGEST_SECONDS for size in tried)


def test_a_trial_that_runs_out_of_memory_is_too_large() -> None:
    def trial(size: int) -> Measurement:
        return Measurement(size, True, problem="killed") if size > 3 else Measurement(size, True, peak=size)

    found = largest_that_fits([1, 2, 3, 6, 12], 1, 100, trial)
    assert isinstance(found, Choice) and found.clips == 3
    none = largest_that_fits([1, 2], 1, 100, lambda size: Measurement(size, True, problem="killed"))
    assert none == Measurement(1, True, problem="killed")


AUTO = [
    (["train.batch_size=auto"], 4),
    (["train.accumulate=auto"], 4),
    (["train.batch_size=auto", "train.batch_size=8"], 8),
    (["train={batch_size: auto}"], 4),
    (["train={batch_size: auto, accumulate: auto}"], 2048),
]


@pytest.mark.parametrize(("overrides", "batch_size"), AUTO)
def test_auto_keeps_the_batch_of_the_recipe_that_it_changes(
    tiny_recipe: Any, overrides: list[str], batch_size: int
) -> None:
    train = tiny_recipe(*overrides).train
    assert (train.batch_size, train.accumulate) == (batch_size, "auto")


def test_auto_without_a_number_is_the_published_batch(tiny_recipe: Any, tmp_path: Path, host: Any) -> None:
    tiny_recipe()
    text = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    text["train"]["batch_size"] = "auto"
    (tmp_path / "auto.yaml").write_text(json.dumps(text))
    assert load_recipe(tmp_path / "auto.yaml", host=host).train.batch_size == 2048
    (tmp_path / "own.yaml").write_text("extends: tiny.yaml\ntrain: {batch_size: auto}\n")
    assert load_recipe(tmp_path / "own.yaml", host=host).train.batch_size == 4


def test_auto_with_a_given_accumulation_is_refused(tiny_recipe: Any) -> None:
    with pytest.raises(
        RecipeError, match="batch_size is auto, so accumulate must be left out, or auto, but is 2"
    ):
        tiny_recipe("train={batch_size: auto, accumulate: 2}")


@pytest.fixture
def two_fit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trials are made up: two clips fit; the sizes that were tried."""
    tried: list[int] = []

    def measure(self: Trials, clips: int, **_: object) -> Measurement:
        tried.append(clips)
        return Measurement(clips, True, problem="killed" if clips > 2 else None, peak=1, seconds=0.1)

    monkeypatch.setattr(Trials, "measure", measure)
    return tried


def test_a_run_records_the_number_and_goes_on_with_it(
    tiny_recipe: Any, make_trainer: Any, two_fit: list[int], tmp_path: Path, console: Any
) -> None:
    auto = ["train.batch_size=auto", "train.epochs=1"]
    trainer = make_trainer(tiny_recipe(*auto))
    assert trainer.recipe.train.backward_passes == 2 and two_fit == [4, 2]
    assert "train.accumulate: 2, since 2 clips at a time take" in console.export_text()
    trainer.step = 1
    trainer.save()
    recorded = yaml.safe_load((tmp_path / "runs" / "tiny" / "recipe.yaml").read_text())["train"]
    assert (recorded["batch_size"], recorded["accumulate"]) == (4, 2)
    again = make_trainer(tiny_recipe(*auto), resume=True)
    assert again.recipe.train.accumulate == 2 and two_fit == [4, 2]
    other = make_trainer(tiny_recipe("train.accumulate=4", "train.epochs=1"), resume=True)
    assert other.recipe.train.accumulate == 4


def test_losses_are_those_of_the_whole_batch(
    tiny_recipe: Any, make_trainer: Any, two_fit: list[int], read_metrics: Any, tmp_path: Path
) -> None:
    make_trainer(tiny_recipe("train.accumulate=auto", "name=a", "train.epochs=1")).fit()
    make_trainer(tiny_recipe("name=b", "train.epochs=1")).fit()
    ours, whole = (read_metrics(tmp_path / "runs" / name) for name in "ab")
    assert len(ours) == 5
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in whole], rel=1e-4)


@pytest.mark.parametrize("others", [(Choice(1, 1, True), 9), ("GPU 1 is full", 0), (None, 0)])
def test_processes_take_the_smallest_of_them(
    tiny_recipe: Any, host: Any, console: Any, two_fit: list[int], monkeypatch: Any, others: Any
) -> None:
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, others])
    monkeypatch.setattr(Processes, "from_main", lambda self, value: value)
    run = prepare(tiny_recipe("train.accumulate=auto"), host, Processes(0, 2, torch.device("cpu")), console)
    if others[0] == "GPU 1 is full":
        with pytest.raises(MemoryShortageError, match="GPU 1 is full"):
            choose_accumulation(run, console)
        return
    clips = 2 if others[0] is None else 1
    assert choose_accumulation(run, console).recipe.train.accumulate == 4 // (2 * clips)


def test_a_machine_that_takes_not_one_clip_is_told_what_to_change(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("m2dx.memory.setting.device_memory", lambda device, processes: Memory(10, 10))
    monkeypatch.setattr(
        Trials, "measure", lambda self, clips, **_: Measurement(clips, True, problem="ended at the limit")
    )
    with pytest.raises(
        MemoryShortageError, match=r"one clip at a time it takes about .* train\.precision=bf16"
    ):
        make_trainer(tiny_recipe("train.accumulate=auto"))
