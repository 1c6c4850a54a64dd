"""Runs commands of m2dx in forks of this process, which has imported what they need: no start costs seconds."""

from __future__ import annotations

import multiprocessing.util
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from m2dx import cli

TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None  # as subprocess has it; None: it did not end in time
    output: str  # what it printed, on stdout and stderr


def start(
    arguments: list[str], log: Path, *, cpu_seconds: int | None = None, more_bytes: int | None = None
) -> int:
    """Starts a command of m2dx in a process group of its own; the process's id.

    `cpu_seconds` and `more_bytes` bound its time on a processor, and the memory that it may have beyond this process's.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", closefd=False) for number in (1, 2)
        )  # pytest has its own
        if cpu_seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        if more_bytes is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + more_bytes
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
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


def run(arguments: list[str], log: Path, *, cpu_seconds: int, seconds: float = 120.0) -> Ended:
    """Runs a command to its end, with 4 GB of memory beyond this process's."""
    log.unlink(missing_ok=True)
    code = wait(start(arguments, log, cpu_seconds=cpu_seconds, more_bytes=4 << 30), seconds)
    return Ended(code, log.read_bytes().decode(errors="replace"))
