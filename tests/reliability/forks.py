"""Runs commands of m2dx in forks of this process, which has imported what they need: no start costs seconds."""

from __future__ import annotations

import multiprocessing.util
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from m2dx import cli

TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None  # as subprocess has it; None: it did not end in time
    output: str  # what it printed, on stdout and stderr


def start(arguments: list[str], log: Path, *, limits: Mapping[int, int] | None = None) -> int:
    """Starts a command of m2dx in a process group of its own, with limits of `resource`; the process's id."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for limit, most in (limits or {}).items():
        resource.setrlimit(limit, (most, most))
    become(arguments)


def become(arguments: list[str]) -> NoReturn:
    """Goes on, in a fork, as the process of a command, and ends with it."""
    code = 70
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", closefd=False) for number in (1, 2)
        )  # pytest has its own
        sys.argv = ["m2dx", *arguments]
        cli.main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]  # as at the end of any Python process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int, seconds: float) -> int | None:
    """How a process of `start` ended, as subprocess has it; None: it did not, and was killed with its group."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def run(
    arguments: list[str], log: Path, *, cpu_seconds: int, seconds: float = 120.0, files: int | None = None
) -> Ended:
    """Runs a command to its end, with 4 GB of memory beyond this process's; `files` more may be open."""
    log.unlink(missing_ok=True)
    there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {resource.RLIMIT_CPU: cpu_seconds, resource.RLIMIT_AS: there + (4 << 30)}
    if files is not None:
        limits[resource.RLIMIT_NOFILE] = len(os.listdir("/proc/self/fd")) + files
    code = wait(start(arguments, log, limits=limits), seconds)
    return Ended(code, log.read_bytes().decode(errors="replace"))
