"""Evaluation during training: processes of their own, which neither stop, slow nor change the run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from m2dx.contract.components import Score
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.jobs.background_scoring import BackgroundScoring
from m2dx.recipe.schema import EvaluationSection
from m2dx.results.scores import read_step_scores, write_step_scores
from m2dx.training.child import child_environment

ROOT = Path(__file__).parents[2]

GOOD = """
import json, pathlib, sys, time
step, checkpoint, run = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
with open(run / "order.txt", "a") as file:
    print("begin", step, checkpoint.read_text(), file=file, flush=True)
    time.sleep(0.1)
    print("end", step, file=file, flush=True)
line = {"step": step, "task": "notes", "protocol": "knn", "metric": "accuracy", "mean": 0.5}
with open(run / "scores_by_step.jsonl", "a") as file:
    print(json.dumps(line), file=file)
"""
SLOW = "import time; time.sleep(600)"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with encoders of the steps 2, 4, ..., 10; each holds its step."""
    (tmp_path / "checkpoints").mkdir()
    for step in range(2, 11, 2):
        encoder_of(tmp_path, step).write_text(f"weights-{step}")
    return tmp_path


def encoder_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}.encoder.safetensors"


@pytest.fixture
def scoring(run: Path, console: Console) -> Callable[..., BackgroundScoring]:
    """Makes the scoring of every fourth step by a script."""

    def make(script: str = GOOD, *, every: int = 4) -> BackgroundScoring:
        def command(step: int, checkpoint: Path) -> list[str]:
            return [sys.executable, "-S", "-c", script, str(step), str(checkpoint), str(run)]

        made = BackgroundScoring(run, section(every), console)
        made.command = command
        return made

    return make


def section(every: int) -> EvaluationSection:
    return EvaluationSection.model_construct(every=every, device="cpu", threads=1)


def steps_of(run: Path) -> list[int]:
    return [found.step for found in read_step_scores(run).scores]


def wait_until(condition: Callable[[], bool], *, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_checkpoints_are_scored_one_at_a_time_in_order(run: Path, scoring: Any, console: Console) -> None:
    """Also those whose checkpoints the run has removed since."""
    checkpoints = CheckpointFolder(run / "checkpoints")
    with scoring() as background:
        for step in range(2, 11, 2):
            encoder_of(run, step).write_text(f"weights-{step}")
            background.take(step)
            background.poll()
            checkpoints.drop_encoders(keep=background.waiting)
        assert background.finish() is None
    assert steps_of(run) == [4, 8] and background.failed == 0
    assert (run / "order.txt").read_text().splitlines() == [
        "begin 4 weights-4",
        "end 4",
        "begin 8 weights-8",
        "end 8",
    ]
    assert list((run / "scores_by_step").iterdir()) == [], "logs without text are removed"
    assert checkpoints.encoder_steps() == []
    assert "scores of step 8: notes knn 50.0" in console.export_text()


def test_a_slow_process_blocks_nothing_and_ends_with_the_run(
    run: Path, scoring: Any, console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    with scoring(SLOW, every=2) as background:
        begin = time.monotonic()
        for _ in range(1000):
            background.poll()
        for step in range(2, 11, 2):
            background.take(step)
            for _ in range(100):
                background.poll()
        assert time.monotonic() - begin < 5.0
        process = background._process
        assert process is not None and process.poll() is None
    assert process.poll() == -signal.SIGTERM
    text = " ".join(console.export_text().split())
    assert "not scored yet: steps 2, 4, 6, 8 and 10; --resume scores them" in text
    assert caplog.text.count("scoring is slower than training: 4 checkpoints wait") == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; print('noise'); sys.exit('error: no such task')", "exit code 1: error: no such task"),
        ("import os; os.kill(os.getpid(), 9)", "by SIGKILL"),
        ("pass", "without scores"),
    ],
)
def test_a_failing_process_is_a_counted_warning(
    run: Path, scoring: Any, caplog: pytest.LogCaptureFixture, script: str, reason: str
) -> None:
    with scoring(f"import sys\nif sys.argv[1] == '4':\n    {script}\nelse:\n  exec({GOOD!r})") as background:
        for step in (4, 8):
            background.take(step)
        assert background.finish() is None
    assert background.failed == 1 and steps_of(run) == [8]
    assert "step 4 lacks scores" in caplog.text and reason in caplog.text
    assert "step-00000004.log" in caplog.text and (run / "scores_by_step" / "step-00000004.log").exists()


def test_scores_of_a_process_that_failed_at_its_end_count(
    run: Path, scoring: Any, console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    with scoring(f"exec({GOOD!r})\nsys.exit('error: evaluator e on drums: failed')") as background:
        background.take(4)
        assert background.finish() is None
    assert background.failed == 1 and steps_of(run) == [4]
    assert "scores of step 4: notes knn 50.0" in console.export_text()
    assert (
        "step 4 lacks scores: its process ended with exit code 1: error: evaluator e on drums" in caplog.text
    )


def test_a_process_that_cannot_start_is_told(
    run: Path, console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    background = BackgroundScoring(run, section(4), console)
    background.command = lambda step, path: ["/no/such/program"]
    background.take(4)
    assert background.finish() is None and background.failed == 1
    assert "its process could not be started" in caplog.text


def test_a_signal_ends_the_wait_for_the_rest(run: Path, scoring: Any, console: Console) -> None:
    with scoring(SLOW) as background:
        background.take(4)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert background.finish() == signal.SIGTERM
    assert "not scored yet: step 4; --resume scores them" in console.export_text()


def test_a_resumed_run_scores_what_is_missing(run: Path, scoring: Any) -> None:
    """Of a run that goes on from step 8: step 4 has scores, 8 waits, and 12 will come again."""
    with scoring(SLOW) as background:
        for step in (4, 8):
            background.take(step)
        encoder_of(run, 12).write_text("weights-12 of before")
        background.take(12)
    score = Score("notes", "accuracy", 0.5, None, (0.5,), "knn")
    write_step_scores(run, 12, [score])
    write_step_scores(run, 4, [score])
    with scoring() as background:
        background.recover(8, total_steps=20)
        assert list(background.waiting) == [8] and steps_of(run) == [4]
        encoder_of(run, 12).write_text("weights-12")
        background.take(12)
        background.finish()
    assert steps_of(run) == [4, 8, 12]
    assert "begin 12 weights-12\n" in (run / "order.txt").read_text()


def test_checkpoints_that_are_there_are_scored_when_the_recipe_asks_for_it_later(
    run: Path, scoring: Any
) -> None:
    background = scoring()
    background.recover(10, total_steps=12)
    assert list(background.waiting) == [4, 8]
    other = scoring(every=5)
    other.recover(10, total_steps=10)
    assert list(other.waiting) == [], "the last step is scored at the end"


def test_scores_of_steps_are_in_order_and_a_broken_line_is_left_out(run: Path) -> None:
    one = Score("notes", "accuracy", 0.25, None, (0.25,), "knn")
    other = Score("drums", "accuracy", 0.75, None, (0.75,), "knn")
    write_step_scores(run, 8, [one])
    with open(run / "scores_by_step.jsonl", "a") as file:
        file.write('{"step": 6, "task"')
    write_step_scores(run, 4, [other, one])
    write_step_scores(run, 8, [other])
    lines = [json.loads(line) for line in (run / "scores_by_step.jsonl").read_text().splitlines()]
    assert [(line["step"], line["mean"]) for line in lines] == [(4, 0.75), (4, 0.25), (8, 0.75)]
    assert lines[0] == {
        "step": 4,
        "task": "drums",
        "protocol": "knn",
        "metric": "accuracy",
        "mean": 0.75,
        "ci95": None,
        "values": [0.75],
        "details": {},
    }


def test_the_process_is_none_of_torchrun_s_and_sees_no_gpu() -> None:
    given = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_PORT": "1",
        "TORCHELASTIC_RUN_ID": "x",
    }
    given |= {"LOCAL_DATA": "/data", "OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": "0"}
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "3")
    assert child_environment(given, threads=3, gpus="") == {
        "LOCAL_DATA": "/data",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        **one,
    }
    assert child_environment(given, threads=3, gpus=None)["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    """The process that scores ends by itself, and so does what an evaluator has started."""
    child = (
        "import os, subprocess, sys, time; from m2dx.contract.parent import end_with_parent; "
        "end_with_parent(int(sys.argv[1])); grandchild = subprocess.Popen(['sleep', '600']); "
        "print(os.getpid(), grandchild.pid, flush=True); time.sleep(600)"
    )
    parent = (
        "import os, subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], start_new_session=True); "
        "time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_running, pids))
        process.kill()
        assert wait_until(lambda: not any(map(is_running, pids)))
