"""`m2dx train --dry-run-memory`: its trials, its tables, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from m2dx import cli
from m2dx.contract.errors import RecipeError, TrainingError
from m2dx.memory.dry_run import DryRun, dry_run, write_json
from m2dx.memory.measure import Measurement, Trials
from m2dx.memory.setting import Setting
from m2dx.memory.tables import print_dry_run

MIB = 2**20


def test_trials_are_real_and_one_that_takes_too_much_is_ended(
    tiny_recipe: Any, host: Any, tmp_path: Path, console: Any
) -> None:
    """All in one: a start of the process takes seconds."""
    recipe = tiny_recipe("train.batch_size=2", labels=True, noise=True)
    with Trials(recipe, {"notes": ("a", "b")}, torch.device("cpu")) as trials:
        assert trials.measure(2, accumulate=False, limit=MIB).problem == "ended at the limit"
        small = trials.measure(1, accumulate=True, limit=16 * 2**30)
        large = trials.measure(2000, accumulate=False, limit=16 * 2**30)
        trials.device = torch.device("meta")
        with pytest.raises(TrainingError, match=r"training two steps, but these failed: .*; `m2dx check`"):
            trials.measure(1, accumulate=True, limit=16 * 2**30)
        trials.recipe = recipe.model_copy(update={"name": "0"})
        with pytest.raises(RecipeError, match="name: must match"):
            trials.measure(1, accumulate=True, limit=16 * 2**30)
    assert small.problem is None and small.seconds > 0
    assert 0 < small.program < small.used < large.used
    # 2000 crops of 0.32 s, with noise, as samples alone
    assert large.used - small.used > 2 * 2000 * 0.32 * 16_000 * 4
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are made up: 1 GB, and 1 GB for each clip; 8 clips a second."""

    def measure(self: Trials, clips: int, *, accumulate: bool, limit: int) -> Measurement:
        used = 2**30 * (1 + clips)
        return Measurement(clips, accumulate, peak=used, program=2**29, state=2**20, seconds=clips / 8)

    monkeypatch.setattr(Trials, "measure", measure)
    from m2dx.memory.limits import Memory

    gb = 2**30
    monkeypatch.setattr("m2dx.memory.setting.device_memory", lambda *_, **__: Memory(16 * gb, 10 * gb))


def found_of(recipe: Any, host: Any, *, processes: int = 1) -> DryRun:
    return dry_run(recipe, host, processes=processes, say=lambda line: None)


def test_sizes_are_tried_until_the_forecast_is_over_the_limit(
    tiny_recipe: Any, host: Any, trial: None, console: Any, tmp_path: Path
) -> None:
    found = found_of(tiny_recipe("train.batch_size=64"), host, processes=2)
    assert [(row.clips, row.accumulate, row.fits) for row in found.rows] == [
        (1, 32, True), (2, 16, True), (4, 8, True), (8, 4, False), (16, 2, False), (32, 1, False)
    ]  # fmt: skip
    assert found.rows[3].note == "not tried: about 9.00 GB" and found.rows[3].measured is None
    assert found.best is not None and found.best.accumulate == 8
    print_dry_run(found, console)
    text = console.export_text()
    assert "an effective batch of 64 needs train.accumulate=8" in text
    assert "4 clips a pass fit in each of 2 processes" in text and "a copy of the gradients" in text
    write_json(found, tmp_path / "memory.json", console)
    plain = json.loads((tmp_path / "memory.json").read_text())
    assert plain["fits"] == {"clips": 4, "accumulate": 8} and len(plain["sizes"]) == 6
    assert plain["memory"]["usable"] == 9 * 2**30 and plain["estimate"]["weights"] > 0


def test_a_batch_that_does_not_divide_is_refused_at_once(tiny_recipe: Any, host: Any) -> None:
    with pytest.raises(RecipeError, match=r"multiple of the number of processes \(3\), but is 4"):
        found_of(tiny_recipe(), host, processes=3)


def test_data_need_not_be_there_unless_a_task_needs_labels(tiny_recipe: Any, host: Any, trial: None) -> None:
    missing = "data.sets.notes={dataset: {name: csv, path: nowhere.csv}, split: null}"
    found = found_of(tiny_recipe(missing), host)
    assert any("clips have no labels here" in note and "nowhere.csv" in note for note in found.notes)
    with pytest.raises(RecipeError, match=r"nowhere\.csv"):
        found_of(tiny_recipe(missing, labels=True), host)


def test_shards_save_what_processes_share(tiny_recipe: Any, host: Any, trial: None) -> None:
    def setting(*overrides: str) -> Setting:
        device = torch.device("cpu")
        return Setting.of(tiny_recipe(*overrides), {}, host, device=device, processes=4, on_this_machine=4)

    copies, shards = setting(), setting("train.sharding=fsdp")
    assert copies.estimated(1) - shards.estimated(1) > copies.estimate.state
    assert "shards" not in " ".join(found_of(tiny_recipe(), host).notes)


@pytest.mark.parametrize(
    "options",
    [["--dry-run-memory", "--resume"], ["--processes", "2"], ["--output", "x.json"]],
)
def test_options_that_do_not_go_together_are_refused(
    tiny_recipe: Any, tmp_path: Path, options: list[str]
) -> None:
    tiny_recipe()
    done = CliRunner().invoke(cli.app, ["train", str(tmp_path / "tiny.yaml"), *options])
    assert done.exit_code == 2 and "dry-run-memory" in done.output
    assert not (tmp_path / "runs").exists()


def test_it_is_for_one_process_that_torchrun_did_not_start(
    tiny_recipe: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    tiny_recipe()
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(cli.app, ["train", str(tmp_path / "tiny.yaml"), "--dry-run-memory"])
    assert done.exit_code == 2 and "torchrun" in done.output
