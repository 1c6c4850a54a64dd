"""Processes that m2dx starts: scores beside a training, trials of memory, the runs of a sweep; all in one way.

Nothing heavy is imported here, since a child watches its parent before torch is there.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

PATIENCE_SECONDS = 5.0  # how long a process may take to end before it is killed
_TORCHRUN = re.compile(
    r"((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this Python; files of the current folder cannot stand in for modules."""
    return [sys.executable, "-P", "-m", module, *arguments]


def start_child(
    command: Sequence[str],
    *,
    output: IO[bytes] | int,
    input: int = subprocess.DEVNULL,
    errors: int | None = subprocess.STDOUT,
    threads: int | None = None,
    gpus: str | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a process that is none of torchrun's; `threads` for its CPU, `gpus` as CUDA_VISIBLE_DEVICES.

    What it prints as errors goes where its output goes; with `errors` None, where this process's errors go.

    It leads a process group of its own: Ctrl-C is for this process, which ends the other one in order.
    """
    own = child_environment(os.environ, threads=threads, gpus=gpus)
    # A group, not a session: Linux may give each session an equal share of the processors, whatever the niceness of
    # its processes.
    return subprocess.Popen(command, stdin=input, stdout=output, stderr=errors, env=own, process_group=0)


def child_environment(given: Mapping[str, str], *, threads: int | None, gpus: str | None) -> dict[str, str]:
    """The environment of a process that is none of torchrun's; without `threads` and `gpus`, these stay as they are."""
    kept = {key: value for key, value in given.items() if not _TORCHRUN.fullmatch(key)}
    kept |= {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    if threads is not None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        kept |= dict.fromkeys(names, str(threads))
    if gpus is not None:
        kept["CUDA_VISIBLE_DEVICES"] = gpus
    return kept


def kill_child(process: subprocess.Popen[bytes]) -> None:
    """Kills a process of `start_child` and all that it started."""
    _signal_group(process, "SIGKILL")
    process.wait()


def end_child(process: subprocess.Popen[bytes]) -> None:
    """Asks a process of `start_child` to end, and kills what is left of it and of what it started."""
    _signal_group(process, "SIGTERM")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE_SECONDS)
    kill_child(process)


def _signal_group(process: subprocess.Popen[bytes], name: str) -> None:
    """Signals a process and its group; Windows has neither, and ends the process alone, at once."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, getattr(signal, name))
        else:
            process.terminate()
