"""Runs the points of a sweep, one after the other or some side by side; a run that fails does not stop the others."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.text import Text

from m2dx.sweep.beginning import Sweep
from m2dx.sweep.folder import Attempt, State, SweepFolder
from m2dx.sweep.points import Point
from m2dx.sweep.processes import Child, StopSignals, gpu_groups, train_command, visible_gpus

POLL_SECONDS = 0.1
STATUS_SECONDS = 1.0
TAIL_BYTES = 4096
MOST_LINES = 5
"""Lines of a log that are shown where a run failed."""


@dataclass
class Outcome:
    """What became of the points."""

    states: dict[str, State] = field(default_factory=dict)
    stopped_by: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """0: all are finished; 128 + signal: stopped by it; else 1."""
        if self.stopped_by is not None:
            return 128 + self.stopped_by
        return 0 if all(state is State.FINISHED for state in self.states.values()) else 1


@dataclass
class _Running:
    point: Point
    child: Child
    slot: int
    lock: int
    command: list[str]
    log_start: int  # bytes
    started: float


class Runner:
    """Runs points in processes of their own, as many side by side as there are slots."""

    def __init__(self, sweep: Sweep, *, processes: int, jobs: int, console: Console) -> None:
        self.folder: SweepFolder = sweep.folder
        self.processes, self.console = processes, console
        own_gpus = not any(point.recipe.train.device.startswith(("cpu", "cuda:")) for point in sweep.points)
        self.gpus = gpu_groups(visible_gpus() if own_gpus else [], jobs=jobs, processes=processes)
        self._free = list(range(jobs))
        self._running: list[_Running] = []
        self._seconds: list[float] = []  # that finished runs took
        self._count = 0
        self._outcome = Outcome()

    def run(self, points: Sequence[Point]) -> Outcome:
        """Runs those that are not finished; a first stop signal has them save and end, a second one kills them."""
        outcome, self._count = self._outcome, len(points)
        waiting: deque[Point] = deque()
        for point in points:
            if self.folder.state(point.name) is State.FINISHED:
                self._tell(point.name, State.FINISHED, "finished before")
            else:
                waiting.append(point)
        with StopSignals() as signals, self.console.status("") as status:
            try:
                self._loop(waiting, signals, status)
            except BaseException:
                self._stop()
                raise
        outcome.stopped_by = signals.first
        for point in waiting:
            outcome.states[point.name] = self.folder.state(point.name)
        return outcome

    def _loop(self, waiting: deque[Point], signals: StopSignals, status: Status) -> None:
        shown, told = 0.0, False
        while self._running or (waiting and signals.first is None):
            while waiting and self._free and signals.first is None:
                self._start(waiting.popleft())
            if signals.first is not None and not told:
                self._stop()
                told = True
            if signals.again:
                for running in self._running:
                    running.child.kill()
            for running in [entry for entry in self._running if entry.child.process.poll() is not None]:
                self._end(running, stopped=signals.first is not None)
            if time.monotonic() > shown + STATUS_SECONDS:
                shown = time.monotonic()
                status.update(self._status())
            time.sleep(POLL_SECONDS)

    def _start(self, point: Point) -> None:
        name = point.name
        if self.folder.state(name) is State.FINISHED:
            self._tell(name, State.FINISHED, "finished by another process")
            return
        lock = self.folder.lock(name)
        if lock is None:
            self._tell(name, State.RUNNING, "left out: another process is training it")
            return
        self.folder.attempt_file(name).unlink(missing_ok=True)
        saved = self.folder.saved_step(name)
        command = train_command(self.folder.recipe(name), processes=self.processes, resume=saved is not None)
        log, slot = self.folder.log(name), self._free.pop(0)
        begin = log.stat().st_size if log.exists() else 0
        devices = self.gpus[slot]
        child = Child.start(
            command,
            log=log,
            lock=lock,
            environment={} if devices is None else {"CUDA_VISIBLE_DEVICES": devices},
        )
        self._running.append(_Running(point, child, slot, lock, command, begin, time.monotonic()))
        where = "" if devices is None else f" on GPU {devices}"
        self.console.print(f"{name}: {'begins' if saved is None else f'goes on from step {saved}'}{where}")

    def _end(self, running: _Running, *, stopped: bool) -> None:
        name, code = running.point.name, running.child.process.returncode
        if code:
            running.child.kill()  # what a launcher that was killed has left
        self._running.remove(running)
        self._free.append(running.slot)
        seconds = time.monotonic() - running.started
        state = self._state_after(name, code, stopped)
        ended = datetime.now().astimezone().isoformat(timespec="seconds")
        attempt = Attempt(state, code, round(seconds, 1), ended, socket.gethostname(), tuple(running.command))
        self.folder.write_attempt(name, attempt)
        os.close(running.lock)
        if state is State.FINISHED:
            self._seconds.append(seconds)
            self._tell(name, state, f"finished in {minutes(seconds)}")
        elif state is State.FAILED:
            self._tell(name, state, f"failed, {_reason(code)}: {self.folder.log(name)}", style="red")
            for line in last_lines(self.folder.log(name), running.log_start):
                self.console.print(f"    {line}", soft_wrap=True)
        else:
            saved = self.folder.saved_step(name)
            self._tell(
                name,
                state,
                "stopped, nothing saved yet" if saved is None else f"stopped, saved at step {saved}",
            )

    def _state_after(self, name: str, code: int, stopped: bool) -> State:
        if code == 0 and self.folder.is_finished(name):
            return State.FINISHED
        by_signal = code in (
            128 + signal.SIGINT,
            128 + signal.SIGTERM,
        )  # of someone else, after which it was saved
        return State.UNFINISHED if stopped or by_signal else State.FAILED

    def _tell(self, name: str, state: State, text: str, *, style: str | None = None) -> None:
        states = self._outcome.states
        states[name] = state
        left = self._count - len(states)
        time_left = ""
        if left and self._seconds and state is State.FINISHED:
            mean = sum(self._seconds) / len(self._seconds)
            time_left = f", about {minutes(mean * left / len(self.gpus))} left"
        self.console.print(
            f"{name}: {text} ({len(states)} of {self._count}{time_left})", style=style, soft_wrap=True
        )

    def _stop(self) -> None:
        for running in self._running:
            running.child.stop()
        if self._running:
            names = ", ".join(running.point.name for running in self._running)
            text = f"stopping: {names} saves after the step at hand; Ctrl-C again ends it at once"
            self.console.print(text, soft_wrap=True)

    def _status(self) -> Text:
        parts = []
        for running in self._running:
            lines = last_lines(self.folder.log(running.point.name), running.log_start, most=1)
            parts.append(f"{running.point.name}: {lines[0] if lines else 'starting'}")
        width = max(self.console.width // max(len(parts), 1) - 4, 20)
        return Text(" | ".join(part[:width] for part in parts))


def last_lines(log: Path, start: int, *, most: int = MOST_LINES) -> list[str]:
    """The end of what was printed into a log from a byte on; from the last error's first line, if there is one."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    return lines[errors[-1] :][:most] if errors and most > 1 else lines[-most:]


def minutes(seconds: float) -> str:
    """Such as "12 s", "3.4 min" or "5.1 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (often for lack of memory)" if -code == signal.SIGKILL else "")
