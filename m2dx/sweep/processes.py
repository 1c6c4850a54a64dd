"""The processes of a sweep: what they are started with, on which GPUs, and how they are stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from m2dx.contract.errors import RecipeError

_ONE_KEYSTROKE_SECONDS = 1.0


def train_command(recipe: Path, *, processes: int, resume: bool) -> list[str]:
    """The command that trains a recipe, under torchrun if with several processes."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    launcher = [sys.executable, "-m", *(torchrun if processes > 1 else []), "m2dx"]
    return [*launcher, "train", str(recipe), *(["--resume"] if resume else [])]


def gpu_groups(gpus: Sequence[str], *, jobs: int, processes: int) -> list[str | None]:
    """For each of the runs side by side, its `CUDA_VISIBLE_DEVICES`; None: as it is.

    Each has GPUs of its own where there are enough; runs of one process share them otherwise. RecipeError where runs of
    several processes would have to.
    """
    if jobs == 1 or not gpus:
        return [None] * jobs
    if jobs * processes <= len(gpus):
        return [",".join(gpus[number * processes : (number + 1) * processes]) for number in range(jobs)]
    if processes > 1:
        raise RecipeError(
            f"{jobs} runs of {processes} processes side by side need {jobs * processes} GPUs, but there are "
            f"{len(gpus)}; lower --jobs or --processes"
        )
    return [gpus[number % len(gpus)] for number in range(jobs)]


def visible_gpus() -> list[str]:
    """The GPUs that torch may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    if named and count:
        return [name.strip() for name in named.split(",")][:count]
    return [str(number) for number in range(count)]


@dataclass
class Child:
    """A process that trains, in a process group of its own, so that a Ctrl-C does not reach its parts."""

    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, command: Sequence[str], *, log: Path, lock: int, environment: Mapping[str, str]) -> Child:
        """Starts a command that appends what it prints to a file; the lock is held as long as it lives."""
        with open(log, "ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120", **environment},
                pass_fds=(lock,),
                process_group=0,
            )
        return cls(process)

    def stop(self) -> None:
        """Asks it to save and end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and what it started at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class StopSignals:
    """While it is entered, Ctrl-C, SIGTERM and SIGHUP are counted instead of ending the process."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self.again = False  # a second one, more than a second after the first
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first, self._since = signal.Signals(number), time.monotonic()
        elif time.monotonic() > self._since + _ONE_KEYSTROKE_SECONDS:
            self.again = True
