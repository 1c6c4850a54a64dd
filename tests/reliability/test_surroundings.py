"""Terminals, containers and clusters: Ctrl-C, a terminal that is lost, few open files, no home, name or /proc."""

import json
import os
import pickle
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from m2dx.contract.host import PluginHost
from m2dx.data.crops import TrainingCrops
from m2dx.encoder.checkpoint import CheckpointFolder, read_checked
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare

RECIPE = """
data: {sets: {some: {dataset: {name: folder, path: audio}}}, workers: 2}
audio: {crop_seconds: 0.32}
model:
  {size: tiny, depth: 1, mask_ratio: 0.6, predictor: {embed_dim: 24, depth: 1, num_heads: 2},
   ema_decay: {start: 0.99, end: 0.999}}
train:
  {epochs: 2000, warmup_epochs: 1, batch_size: 4, base_lr: 1e-3, device: cpu, threads: 1, log_every: 1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe on a folder of files that are resampled, so that batches are float32."""
    (tmp_path / "audio").mkdir()
    for number in range(8):
        noise = 0.1 * np.random.default_rng(number).standard_normal(22_050)
        soundfile.write(tmp_path / "audio" / f"{number}.flac", noise, 22_050)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("files", [4, 8, 12, 16, 20, 32, 64])
def test_few_open_files_are_enough_or_told(files: int, recipe: Path, tmp_path: Path) -> None:
    arguments = ["pack", str(recipe.parent / "audio"), str(tmp_path / "packed"), "--workers", "2"]
    ended = forks.run(arguments, tmp_path / "log", cpu_seconds=10, files=files)
    assert forks.TRACEBACK not in ended.output
    if ended.code:
        assert "Too many open files" in ended.output and "ulimit -n" in ended.output
        assert ended.output.count("\n") == 1
    else:
        assert "8 pieces of audio" in ended.output


def test_crops_go_to_processes_that_are_spawned(tiny_recipe: Callable[..., Any], host: PluginHost) -> None:
    """As on macOS, and from Python 3.14 on: what forked processes have is pickled for them."""
    alone = Processes(0, 1, torch.device("cpu"))
    run = prepare(tiny_recipe("noise.mean=-6", labels=True, noise=True), host, alone, Console(quiet=True))
    crops: TrainingCrops = pickle.loads(pickle.dumps(run.crops))
    for key in next(iter(run.batches())):
        one, other = run.crops[key], crops[key]
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.ids_shuffle, other.ids_shuffle)


def test_ctrl_c_saves_and_says_how_to_resume(recipe: Path, tmp_path: Path) -> None:
    """At a terminal the whole process group gets it, workers too."""
    import m2dx.jobs.train  # noqa: F401  for the fork

    log, run = tmp_path / "log", recipe.parent / "run"
    process = forks.start(["train", str(recipe), f"output={recipe.parent}", "name=run"], log)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") > 3:
            break
        time.sleep(0.02)
    os.killpg(process, signal.SIGINT)
    code, output = forks.wait(process, 60), log.read_text()
    checkpoints = CheckpointFolder(run / "checkpoints")
    assert len(checkpoints.steps()) == 1, output
    state = read_checked(checkpoints.file(checkpoints.steps()[0]))
    assert state["step"] >= 4
    assert (run / "metrics.jsonl").read_text().count("\n") == state["step"]
    assert forks.TRACEBACK not in output and "--resume" in output, output
    assert code == 130, output


@pytest.mark.slow
@pytest.mark.parametrize("tells", [True, False])
def test_a_run_whose_terminal_is_lost_is_saved(tells: bool, recipe: Path) -> None:
    """`tells`: the terminal sends SIGHUP, else it is ignored, as under nohup, and SIGTERM follows."""
    import m2dx.jobs.train  # noqa: F401  for the fork

    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if tells else signal.SIG_IGN)
        forks.become(["train", str(recipe), f"output={recipe.parent}", "name=run"])
    run, shown = recipe.parent / "run", b""
    for _ in range(6000):
        if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) > 5:
            break
        os.set_blocking(terminal, False)
        try:
            shown += os.read(terminal, 10_000)
        except BlockingIOError:
            time.sleep(0.01)
    else:
        pytest.fail(shown.decode())
    os.close(terminal)
    if not tells:
        time.sleep(1)
        os.kill(process, signal.SIGTERM)
    assert forks.wait(process, 60) == 128 + (signal.SIGHUP if tells else signal.SIGTERM)
    steps = json.loads((run / "summary.json").read_text())["steps"]
    assert (run / "checkpoints" / f"step-{steps:08d}.pt").exists() and steps > 5


IN_A_NAMESPACE = 'unshare -m bash -c \'mount -t tmpfs -o size={size} tmpfs {place} && exec "$0" "$@"\''
SURROUNDINGS = {
    "64 MB of /dev/shm": IN_A_NAMESPACE.format(size="64m", place="/dev/shm"),
    "1 MB of /dev/shm": IN_A_NAMESPACE.format(size="1m", place="/dev/shm"),
    "no /proc": IN_A_NAMESPACE.format(size="1m", place="/proc"),
    "a home that is missing": "env HOME=/nonexistent",
    "a home that is read-only": "env HOME=/proc",
    "no HOME": "env -u HOME",
    "a user without a name": "unshare -U --map-user=54321 env -u LOGNAME -u USER HOME=/nonexistent",
}


@pytest.mark.slow
@pytest.mark.parametrize("prefix", SURROUNDINGS.values(), ids=SURROUNDINGS.keys())
def test_check_works_where_something_is_lacking(prefix: str, recipe: Path) -> None:
    if "env" not in prefix.split()[0] and (os.getuid() != 0 or shutil.which(prefix.split()[0]) is None):
        pytest.skip("needs root")
    for path in (recipe.parent, *recipe.parent.parents[:2]):
        os.chmod(path, 0o755)
    command = f"{prefix} {sys.executable} -m m2dx check {recipe} audio.crop_seconds=20 data.workers=4"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0 and forks.TRACEBACK not in ended.stdout + ended.stderr, ended.stderr
