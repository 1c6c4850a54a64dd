"""Sweeps with real runs: from the command to the table, killed in the middle, and as tasks of Slurm with torchrun."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from m2dx import cli
from m2dx.sweep.folder import State, SweepFolder

WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from m2dx.cli import app

for arguments, code in (
    (["sweep", "--help"], 0),
    (["sweep-table", "--help"], 0),
    (["sweep", "none.yaml", "seed=0"], 1),
    (["sweep", "none.yaml", "seed=0,1"], 1),
    (["sweep", ".", "seed=0,1"], 2),
    (["sweep", "none.yaml", "seed=0,1", "--sbatch", "--time=1"], 2),
    (["sweep-table", ".", "--format", "rich", "-o", "a.md"], 2),
):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, (arguments, result.output, result.exception)
    assert "torch" not in sys.modules, arguments
"""


@pytest.fixture
def tiny(tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the tiny recipe, in the current folder."""
    tiny_recipe()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tiny.yaml"


def m2dx(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def wait_for(condition: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_wrong_arguments_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, check=True)


def test_a_sweep_from_the_command_to_the_table(tiny: Path) -> None:
    grid = ("model.mask_ratio=0.6,0.8", "train.epochs=0.8", "name=first")
    planned = m2dx("sweep", tiny, *grid, "--dry-run")
    assert planned.exit_code == 0 and not Path("runs").exists()
    assert "mask_ratio-0p8 (not started): model.mask_ratio=0.8\n" in planned.output
    ran = m2dx("sweep", tiny, *grid, "--point", "mask_ratio-0p6")
    assert ran.exit_code == 0, ran.output
    folder = SweepFolder(Path("runs/first"))
    assert folder.state("mask_ratio-0p6") is State.FINISHED and folder.state("mask_ratio-0p8") is State.NEW
    assert json.loads((folder.run("mask_ratio-0p6") / "summary.json").read_text())["steps"] == 4
    table = m2dx("sweep-table", folder.path, "--column", "loss").output
    assert re.search(r"^\| 0\.6 \| 1 of 1 \| \d\.\d{4} \|$", table, re.MULTILINE)
    assert re.search(r"^\| 0\.8 \| not started \| - \|$", table, re.MULTILINE)
    again = m2dx("sweep", folder.path, "--point", "mask_ratio-0p7")
    assert "did you mean 'mask_ratio-0p6'" in str(again.exception) or "'mask_ratio-0p8'" in str(
        again.exception
    )


def test_what_cannot_be_started(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.sh").write_text("echo mine\n")
    told = m2dx("sweep", tiny, "seed=0,1", "--slurm", "mine.sh")
    assert "mine.sh is there already, and not written by m2dx sweep" in str(told.exception)
    assert not Path("runs").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = m2dx("sweep", tiny, "seed=0,1")
    assert "must be started without torchrun" in str(told.exception)


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_middle_goes_on_and_the_others_finish(tiny: Path) -> None:
    grid = ("seed=0,1", "train.epochs=8", "train.checkpoint_every=1")
    sweep = subprocess.Popen(
        [sys.executable, "-m", "m2dx", "sweep", str(tiny), *grid], stdout=subprocess.PIPE, text=True
    )
    folder = SweepFolder(Path("runs/tiny-seed"))
    wait_for(lambda: (folder.saved_step("seed-0") or 0) >= 3)
    (child,) = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    output, _ = sweep.communicate()
    assert sweep.returncode == 1
    assert "seed-0: failed, killed by SIGKILL" in output and "seed-1: finished in" in output
    step = folder.saved_step("seed-0")
    assert step is not None and step < 40
    resumed = m2dx("sweep", tiny, *grid, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert (
        f"seed-0: goes on from step {step}" in resumed.output and "seed-1: finished before" in resumed.output
    )
    assert f"resuming from step {step}" in folder.log("seed-0").read_text()
    assert json.loads((folder.run("seed-0") / "summary.json").read_text())["steps"] == 40
    metrics = (folder.run("seed-0") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == list(range(1, 41))


@pytest.mark.slow
def test_sigterm_saves_and_a_task_of_slurm_goes_on_under_torchrun(tiny: Path) -> None:
    grid = ("seed=0,1", "train.epochs=8", "train.checkpoint_every=2")
    assert m2dx("sweep", tiny, *grid, "--slurm", "sweep.sh", "--processes", 2).exit_code == 0
    subprocess.run(["bash", "-n", "sweep.sh"], check=True)
    folder = SweepFolder(Path("runs/tiny-seed"))
    assert "points=(\n  seed-0\n  seed-1\n)" in Path("sweep.sh").read_text()
    sweep = subprocess.Popen([sys.executable, "-m", "m2dx", "sweep", str(folder.path), "--point", "seed-1"])
    wait_for(lambda: folder.saved_step("seed-1") is not None)
    assert folder.state("seed-1") is State.RUNNING
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait() == 143
    assert folder.state("seed-1") is State.UNFINISHED
    step = folder.saved_step("seed-1")
    environment = {**os.environ, "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "1"}
    task = subprocess.run(["bash", "sweep.sh"], env=environment, capture_output=True, text=True)
    assert task.returncode == 0, task.stdout + task.stderr
    assert f"seed-1: goes on from step {step}" in task.stdout
    assert "on cpu x 2" in folder.log("seed-1").read_text()
    assert {name: folder.state(name) for name in ("seed-0", "seed-1")} == {
        "seed-0": State.NEW,
        "seed-1": State.FINISHED,
    }
