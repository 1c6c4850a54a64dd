"""Ctrl-C at a terminal: the whole process group gets it, workers too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from m2dx.encoder.checkpoint import CheckpointFolder, read_checked

ROOT = Path(__file__).parents[2]


def test_ctrl_c_saves_and_says_how_to_resume(tiny_recipe: Any, tmp_path: Path) -> None:
    tiny_recipe()  # writes tiny.yaml
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "M2DX_PLUGINS": ""}
    command = [sys.executable, "-m", "m2dx", "train", "tiny.yaml", "train.epochs=10000", "data.workers=2"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    metrics = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") > 3:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    folder = CheckpointFolder(metrics.parent / "checkpoints")
    assert len(folder.steps()) == 1, output
    state = read_checked(folder.file(folder.steps()[0]))
    assert state["step"] >= 4
    assert metrics.read_text().count("\n") == state["step"]
    assert "Traceback" not in output
    assert "--resume" in output, output
    assert process.returncode == 130, output
