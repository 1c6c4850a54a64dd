"""The Slurm script: that bash takes it, what each array task runs, and how it stops and goes back into the queue."""

import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from m2dx_sweep.slurm import slurm_script

COMMANDS = [["python", "-m", "m2dx", "name=a b"], ["python", "-m", "m2dx", "name=it's $HOME"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "a folder" / "it's a sweep"
    path.mkdir(parents=True)
    return path


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def script(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script whose Python writes down its arguments, and waits for SIGTERM if told so, to end with the code told."""
    python = executable(
        tmp_path / "python",
        f'printf "%s\\n" "$@" > {tmp_path}/arguments; [ -e {tmp_path}/wait ] || exit 7\n'
        f'trap "exit $(cat {tmp_path}/wait)" TERM; touch {tmp_path}/waits; for i in $(seq 600); do sleep 0.1; done',
    )
    executable(tmp_path / "scontrol", f'echo "$@" > {tmp_path}/requeued')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = tmp_path / "sweep.sh"
    options = ["--partition=gpu --gpus-per-node=4", "-t 24:00:00"]
    commands = [[str(python), *command[1:]] for command in COMMANDS]
    text = slurm_script(folder, commands, file=file, jobs=3, options=options)
    file.write_text(text)
    return file


def start(script: Path, task: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": task}
    return subprocess.Popen(["bash", str(script)], env=environment)


def wait_for(file: Path) -> None:
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} has not come")


def test_bash_takes_the_script_and_it_has_the_options(script: Path, folder: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = [
        line.removeprefix("#SBATCH ")
        for line in script.read_text().splitlines()
        if line.startswith("#SBATCH")
    ]
    assert "--array=0-1%3" in lines and "--requeue" in lines and "--signal=B:USR1@120" in lines
    assert f'--output="{folder}/logs/slurm-%A_%a.log"' in lines
    assert lines[-2:] == ["--partition=gpu --gpus-per-node=4", "-t 24:00:00"]


def test_a_task_runs_its_point_and_ends_with_its_exit_code(
    script: Path, folder: Path, tmp_path: Path
) -> None:
    assert start(script, "1").wait() == 7
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == COMMANDS[1][1:]
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("code", [143, 1, 0])
def test_before_the_time_limit_it_saves_and_goes_back_into_the_queue(
    script: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """torchrun ends with 1, and a run that was done by then with 0. Slurm itself requeues what it preempts."""
    (tmp_path / "wait").write_text(str(code))
    task = start(script, "0")
    wait_for(tmp_path / "waits")
    task.send_signal(number)
    assert task.wait() == code
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else None) == (
        "requeue 12_0\n" if number == signal.SIGUSR1 and code != 0 else None
    )


def test_outside_of_slurm_it_says_what_is_missing(script: Path) -> None:
    ran = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert ran.returncode != 0 and "SLURM_ARRAY_TASK_ID: must be set by sbatch --array" in ran.stderr


def test_percent_signs_of_a_folder_are_no_pattern_of_slurm(tmp_path: Path) -> None:
    text = slurm_script(tmp_path / "100%", COMMANDS, file=Path("a.sh"), jobs=None)
    assert f'--output="{tmp_path}/100%%/logs/slurm-%A_%a.log"' in text
