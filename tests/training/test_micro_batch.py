"""Which micro-batch fits: real trials, `accumulate: auto` and its record, `m2dx train --dry-run-memory`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from m2dx import cli
from m2dx.contract.errors import MemoryShortageError, RecipeError, TrainingError
from m2dx.recipe.loading import recipe_from_mapping, recipe_to_mapping
from m2dx.training import micro_batch
from m2dx.training.distributed import Processes
from m2dx.training.micro_batch import Step, Trial, choose_accumulation, dry_run, micro_batches, try_steps
from m2dx.training.prepare import prepare

CPU = torch.device("cpu")
GB = 2**30


def test_micro_batches_divide_the_part_of_each_process() -> None:
    assert micro_batches(48, 2) == [1, 2, 4, 8, 24]
    assert micro_batches(96, 2) == [1, 2, 4, 8, 16, 48]
    assert micro_batches(9, 1) == [1, 3, 9]
    with pytest.raises(RecipeError, match=r"multiple of the number of processes \(5\), but is 48"):
        micro_batches(48, 5)


def test_trials_are_real(tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And run no module of the current folder."""
    (tmp_path / "torch.py").write_text("raise SystemExit(3)")
    recipe = tiny_recipe("train.batch_size=512", "data.epoch_size=512", labels=True, noise=True)
    monkeypatch.chdir(tmp_path)
    trial = try_steps(recipe, CPU, 1, 1)
    assert [(step.clips, step.accumulate) for step in trial.steps] == [
        (2**power, 512 // 2**power) for power in range(10)
    ]
    assert trial.ended == "" and trial.best.accumulate == 1
    peaks = [step.peak for step in trial.steps]
    assert peaks == sorted(peaks) and peaks[-1] <= trial.usable <= trial.total
    assert all(step.seconds > 0 for step in trial.steps)
    # 512 crops of 0.32 s, with noise, as samples alone
    assert peaks[-1] - peaks[0] > 2 * 512 * 0.32 * 16_000 * 4
    assert not (tmp_path / "runs").exists()


def test_a_trial_that_cannot_train_says_why(tiny_recipe: Any) -> None:
    with pytest.raises(TrainingError, match=r"by training steps, but these failed: .*; `m2dx check`"):
        try_steps(tiny_recipe(), torch.device("fpga"), 1, 1)
    with pytest.raises(RecipeError, match="name: must match"):
        try_steps(tiny_recipe().model_copy(update={"name": "0"}), CPU, 1, 1)


FULL = """
import json, sys
from m2dx.training import micro_batch
from m2dx.training.memory import Memory
memory = Memory(2**30, int(sys.argv[1]))
micro_batch.host_memory, micro_batch.LONGEST_SECONDS = lambda: memory, 1e9
sys.argv = ["trial", str(__import__("os").getppid())]
micro_batch.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")
def test_a_full_memory_ends_a_trial_after_what_fits(tiny_recipe: Any) -> None:
    """65,536 crops of 0.32 s take 1.3 GB as samples alone."""
    recipe = tiny_recipe("train.batch_size=65536", "data.epoch_size=65536", "data.workers=0")
    request = {
        "mapping": recipe_to_mapping(recipe),
        "device_name": "cpu",
        "processes": 1,
        "here": 1,
        "sizes": [1, 8, 65536],
    }
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(int(0.9 * GB))],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["total"] == GB and lines[0]["usable"] >= int(0.8 * GB)
    assert [line.get("clips") for line in lines[1:-1]] == [1, 8]
    assert lines[-1] == {"ended": "memory ran out"}


def test_a_process_of_trials_that_is_killed_has_told_what_fits(
    tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = """
import json, os, signal
print(json.dumps({"total": 9, "usable": 8}))
print(json.dumps({"clips": 2, "accumulate": 2, "peak": 5, "seconds": 1.0}), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    monkeypatch.setattr(micro_batch, "module_command", lambda *_: [sys.executable, "-c", killed])
    trial = try_steps(tiny_recipe(), CPU, 1, 1)
    assert trial.best == Step(2, 2, 5, 1.0) and "killed" in trial.ended


@pytest.fixture
def two_fit(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Trials are made up: two clips fit; the sizes that were asked for."""
    tried: list[tuple[int, ...]] = []

    def made_up(recipe: Any, device: Any, processes: int, here: int) -> Trial:
        sizes = micro_batches(recipe.train.batch_size, processes)
        tried.append(tuple(sizes))
        steps = [Step(n, recipe.train.batch_size // (processes * n), n * GB, 0.1) for n in sizes if n <= 2]
        return Trial(16 * GB, 9 * GB, tuple(steps), "memory ran out" if sizes[-1] > 2 else "")

    monkeypatch.setattr(micro_batch, "try_steps", made_up)
    return tried


def test_a_run_records_the_number_and_goes_on_with_it(
    tiny_recipe: Any, make_trainer: Any, two_fit: Any, tmp_path: Path, console: Any
) -> None:
    auto = ["train.accumulate=auto", "train.epochs=1"]
    trainer = make_trainer(tiny_recipe(*auto))
    assert trainer.recipe.train.backward_passes == 2 and two_fit == [(1, 2, 4)]
    assert "train.accumulate: 2, since 2 clips at a time take 2.00 GB" in console.export_text()
    trainer.step = 1
    trainer.save()
    recorded = yaml.safe_load((tmp_path / "runs" / "tiny" / "recipe.yaml").read_text())["train"]
    assert (recorded["batch_size"], recorded["accumulate"]) == (4, 2)
    again = make_trainer(tiny_recipe(*auto), resume=True)
    assert again.recipe.train.accumulate == 2 and two_fit == [(1, 2, 4)]
    other = make_trainer(tiny_recipe("train.accumulate=4", "train.epochs=1"), resume=True)
    assert other.recipe.train.accumulate == 4


def test_losses_are_those_of_the_whole_batch(
    tiny_recipe: Any, make_trainer: Any, two_fit: Any, read_metrics: Any, tmp_path: Path
) -> None:
    make_trainer(tiny_recipe("train.accumulate=auto", "name=a", "train.epochs=1")).fit()
    make_trainer(tiny_recipe("name=b", "train.epochs=1")).fit()
    ours, whole = (read_metrics(tmp_path / "runs" / name) for name in "ab")
    assert len(ours) == 5
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in whole], rel=1e-4)


@pytest.mark.parametrize("other", [Step(1, 2, 1, 0.1), "GPU 1 is full", None])
def test_processes_take_the_smallest_of_them(
    tiny_recipe: Any, host: Any, console: Any, two_fit: Any, monkeypatch: Any, other: Any
) -> None:
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, value])
    run = prepare(tiny_recipe("train.accumulate=auto"), host, Processes(0, 2, CPU), console)
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, other])
    if isinstance(other, str):
        with pytest.raises(MemoryShortageError, match="GPU 1 is full"):
            choose_accumulation(run, console)
        return
    clips = 2 if other is None else 1
    assert choose_accumulation(run, console).recipe.train.accumulate == 4 // (2 * clips)


def test_a_machine_that_takes_not_one_clip_is_told_what_to_change(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(micro_batch, "try_steps", lambda *_: Trial(10, 9, (), "memory ran out"))
    with pytest.raises(
        MemoryShortageError, match=r"with one clip at a time it does not: .* train\.precision=bf16"
    ):
        make_trainer(tiny_recipe("train.accumulate=auto"))


def test_a_dry_run_says_what_to_set(tiny_recipe: Any, two_fit: Any, console: Any) -> None:
    dry_run(tiny_recipe("train.batch_size=64"), console, processes=2)
    text = console.export_text()
    assert (
        "2 clips a pass fit in each of 2 processes: an effective batch of 64 needs train.accumulate=16"
        in text
    )
    assert "More were not tried: memory ran out. 9.00 GB of 16.00 GB may be used" in text


def test_a_batch_that_does_not_divide_is_refused_at_once(tiny_recipe: Any, console: Any) -> None:
    with pytest.raises(RecipeError, match=r"multiple of the number of processes \(3\), but is 4"):
        dry_run(tiny_recipe(), console, processes=3)


def test_the_command_prints_what_it_found(tiny_recipe: Any, two_fit: Any, tmp_path: Path) -> None:
    tiny_recipe()
    done = CliRunner().invoke(cli.app, ["train", str(tmp_path / "tiny.yaml"), "--dry-run-memory"])
    assert done.exit_code == 0, done.output
    lines = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in done.output.splitlines() if "│" in line
    ]
    assert lines == [["1", "4", "1.00 GB", "0.10"], ["2", "2", "2.00 GB", "0.10"]]
    assert "9.00 GB of 16.00 GB may be used" in done.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options",
    [["--dry-run-memory", "--resume"], ["--processes", "2"]],
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


@pytest.mark.slow
def test_images_are_measured_too(tiny_recipe: Any, host: Any, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        Image.new("RGB", (40, 40)).save(tmp_path / "pictures" / f"{number}.png")
    mapping = recipe_to_mapping(tiny_recipe("train.batch_size=2", "data.epoch_size=null"))
    dataset = {"name": "image_folder", "path": str(tmp_path / "pictures")}
    mapping["data"]["sets"] = {"pictures": {"dataset": dataset}}
    del mapping["audio"], mapping["data"]["mean"], mapping["data"]["std"]
    mapping["image"] = {"size": [32, 32], "channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3}
    mapping["model"]["patch_size"] = [16, 16]
    recipe = recipe_from_mapping(mapping, host=host, source="images")
    assert try_steps(recipe, CPU, 1, 1).best.clips == 2
