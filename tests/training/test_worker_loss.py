"""A process that dies or hangs ends the run of all, and torchrun starts it again from the last checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from m2dx.encoder.checkpoint import CheckpointFolder, read_checked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc"),
]
ROOT = Path(__file__).parents[2]
STEPS = 24
OPTIONS = [
    "audio.crop_seconds=0.64",
    "model.depth=1",
    "data.epoch_size=96",
    "data.workers=1",
    "data.mean=-7",
    "data.std=4",
    "noise.mean=-7",
    "train.epochs=1",
    "train.warmup_epochs=0",
    "train.batch_size=4",
    "train.precision=fp32",
    "train.device=cpu",
    "train.log_every=1",
    "train.checkpoint_every=4",
    "evaluation=null",
]


class Launched:
    """`m2dx train` in two processes under torchrun."""

    def __init__(self, folder: Path, name: str, *options: str, restarts: int = 0) -> None:
        self.run, self.log = folder / name, folder / f"{name}.log"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        recipe = str(ROOT / "benchmarks" / "recipes" / "step.yaml")
        train = ["--max-restarts", str(restarts), "-m", "m2dx", "train", recipe, "--resume-or-begin"]
        given = [f"output={folder}", f"name={name}", *OPTIONS, *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "M2DX_PLUGINS": ""}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*torchrun, *train, *given], env=environment, stdout=log, stderr=log
            )

    def worker(self, rank: int) -> int:
        """The process id of a rank."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == self.process.pid and f"RANK={rank}".encode() in environment:
                return int(folder.name)
        raise AssertionError(f"no process of rank {rank}: {self.text()}")

    def wait_for_step(self, step: int) -> None:
        """Waits until a step is in metrics.jsonl."""
        path, end = self.run / "metrics.jsonl", time.monotonic() + 240
        while not (path.exists() and f'"step": {step},' in path.read_text()):
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            time.sleep(0.02)

    def text(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


@contextmanager
def launched(folder: Path, name: str, *options: str, restarts: int = 0) -> Iterator[Launched]:
    """A run that leaves no process behind."""
    run = Launched(folder, name, *options, restarts=restarts)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait(60)


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_a_killed_process_costs_no_more_than_the_steps_since_the_last_checkpoint(
    tmp_path: Path, sharding: str
) -> None:
    """Each of the two once; the weights are those of a run that nothing happened to, to the bit."""
    option = f"train.sharding={sharding}"
    with launched(tmp_path, "whole", option) as whole:
        assert whole.process.wait(300) == 0, whole.text()
    with launched(tmp_path, "killed", option, restarts=3) as killed:
        for rank, step in ((1, 6), (0, 15)):
            killed.wait_for_step(step)
            os.kill(killed.worker(rank), signal.SIGKILL)
        assert killed.process.wait(300) == 0, killed.text()
    text = killed.log.read_text()
    assert "resuming from step 4" in text or "resuming from step 8" in text
    assert "another has ended or does not answer" in text
    states = [read_checked(CheckpointFolder(run.run / "checkpoints").file(STEPS)) for run in (whole, killed)]
    for name, value in states[0]["model"].items():
        assert torch.equal(states[1]["model"][name], value), name
    steps = [json.loads(line)["step"] for line in (killed.run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))
    assert (killed.run / "encoder" / "model.safetensors").exists()
    assert not list(tmp_path.rglob(".*.partial"))


def test_a_process_that_hangs_does_not_hang_the_others(tmp_path: Path) -> None:
    """It is stopped in the middle; the other one waits for `train.timeout_minutes`, says so, and ends."""
    with launched(tmp_path, "hung", "train.timeout_minutes=0.1") as hung:
        hung.wait_for_step(5)
        stopped = hung.worker(1)
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        assert hung.process.wait(120) != 0
        assert (
            time.monotonic() - began < 6 + 30 + 30
        )  # the timeout, torchrun's patience with SIGTERM, and spare
    text = hung.log.read_text()
    assert "process 0: the 2 processes must go on together" in text, text[-3000:]
    assert "--resume-or-begin" in text
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)
