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
from m2dx_sweep.grid import parse_grid
from m2dx_sweep.running import points_of
from m2dx_sweep.table import is_finished
from typer.testing import CliRunner

import m2dx
from m2dx import cli
from m2dx.encoder.checkpoint import CheckpointFolder

WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from m2dx.cli import app

for arguments, code in (
    (["sweep", "--help"], 0),
    (["sweep-table", "--help"], 0),
    (["sweep", "none.yaml", "seed=0"], 1),
    (["sweep", "none.yaml", "seed=0,1"], 1),
    (["sweep", ".", "seed=0,1"], 1),
    (["sweep", "none.yaml", "seed=0,1", "--sbatch", "--time=1"], 2),
    (["sweep-table", ".", "--format", "rich", "-o", "a.md"], 2),
):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, (arguments, result.output, result.exception)
    assert "torch" not in sys.modules, arguments
"""


def command(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def wait_for(condition: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_wrong_arguments_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, check=True)


@pytest.mark.usefixtures("no_page")
def test_a_sweep_from_the_command_to_the_table(tiny: Path, host: m2dx.PluginHost) -> None:
    """One point is trained as a task of Slurm would, the other by the sweep, which leaves the first one alone."""
    grid = ("model.mask_ratio=0.6,0.8", "train.epochs=0.8", "name=first")
    planned = command("sweep", tiny, *grid, "--dry-run")
    assert planned.exit_code == 0 and not Path("runs").exists()
    assert "mask_ratio-0p8 (left to do): model.mask_ratio=0.8\n" in planned.output
    assert command("sweep", tiny, *grid, "--slurm", "sweep.sh").exit_code == 0
    points = points_of(tiny, parse_grid(grid), host=host)
    trained = command("train", *points[0].arguments, "--resume-or-begin")
    assert trained.exit_code == 0, trained.output
    folder = Path("runs/first")
    assert json.loads((folder / "mask_ratio-0p6" / "summary.json").read_text())["steps"] == 4
    table = command("sweep-table", folder, "--column", "loss").output
    assert re.search(r"^\| 0\.6 \| 1 of 1 \| \d\.\d{4} \|$", table, re.MULTILINE)
    assert re.search(r"^\| 0\.8 \| 0 of 1 \| - \|$", table, re.MULTILINE)
    before = (folder / "mask_ratio-0p6" / "summary.json").stat().st_mtime_ns
    again = command("sweep", tiny, *grid)
    assert again.exit_code == 0 and "(1 of 2 points finished)" in again.output, again.output
    assert "mask_ratio-0p6: " not in again.output and "mask_ratio-0p8: finished" in again.output
    assert (folder / "mask_ratio-0p6" / "summary.json").stat().st_mtime_ns == before


def test_what_cannot_be_started(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.sh").write_text("echo mine\n")
    told = command("sweep", tiny, "seed=0,1", "--slurm", "mine.sh")
    assert "mine.sh exists already, and m2dx sweep has not written it" in str(told.exception)
    assert not Path("runs").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = command("sweep", tiny, "seed=0,1")
    assert "must be started without torchrun" in str(told.exception)


def saved_step(run: Path) -> int | None:
    steps = CheckpointFolder(run / "checkpoints").steps()
    return steps[-1] if steps else None


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_middle_goes_on_and_the_others_finish(tiny: Path) -> None:
    grid = ("seed=0,1", "train.epochs=8", "train.checkpoint_every=1")
    sweep = subprocess.Popen(
        [sys.executable, "-m", "m2dx", "sweep", str(tiny), *grid], stdout=subprocess.PIPE, text=True
    )
    run = Path("runs/tiny-seed/seed-0")
    wait_for(lambda: (saved_step(run) or 0) >= 3)
    (child,) = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    output, _ = sweep.communicate()
    assert sweep.returncode == 1
    assert "seed-0: failed, killed by SIGKILL" in output and "seed-1: finished" in output
    step = saved_step(run)
    assert step is not None and step < 40
    resumed = command("sweep", tiny, *grid)
    assert resumed.exit_code == 0, resumed.output
    assert "(1 of 2 points finished)" in resumed.output and "seed-1: " not in resumed.output
    assert f"resuming from step {step}" in Path("runs/tiny-seed/logs/seed-0.log").read_text()
    assert json.loads((run / "summary.json").read_text())["steps"] == 40
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == list(range(1, 41))


@pytest.mark.slow
def test_sigterm_saves_and_a_task_of_slurm_goes_on_under_torchrun(tiny: Path) -> None:
    grid = ("seed=0,1", "train.epochs=8", "train.checkpoint_every=2")
    assert command("sweep", tiny, *grid, "--slurm", "sweep.sh", "--processes", 2).exit_code == 0
    subprocess.run(["bash", "-n", "sweep.sh"], check=True)
    first = Path("runs/tiny-seed/seed-0")
    sweep = subprocess.Popen([sys.executable, "-m", "m2dx", "sweep", str(tiny), *grid])
    wait_for(lambda: saved_step(first) is not None)
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait() == 143
    step = saved_step(first)
    assert step is not None and not is_finished(first)
    environment = {**os.environ, "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "0"}
    task = subprocess.run(["bash", "sweep.sh"], env=environment, capture_output=True, text=True)
    assert task.returncode == 0, task.stdout + task.stderr
    assert f"resuming from step {step}" in task.stdout and "on cpu x 2" in task.stdout
    assert is_finished(first) and not Path("runs/tiny-seed/seed-1").exists()
