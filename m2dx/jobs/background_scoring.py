"""Evaluation while a run trains: a separate process scores its checkpoints, one after another.

Training never waits for that process or fails with it; only `finish`, after the training, waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from rich.console import Console

from m2dx.contract.atomic import replace_file
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.recipe.schema import EvaluationSection
from m2dx.results.scores import drop_step_scores, read_step_scores
from m2dx.training.child import end_child, module_command, start_child
from m2dx.training.memory import KILLED_EVALUATION
from m2dx.training.signals import StopRequests

logger = logging.getLogger(__name__)

WAITING_FOLDER = "scores_by_step"
"""Folder in a run's folder, with the encoders that wait for their scores, and the logs of the processes."""
MANY_WAITING = 3
_POLL_SECONDS = 0.1

Command = Callable[[int, Path], list[str]]
"""Makes the command that scores an encoder, from a step and the file of the encoder's weights."""


class BackgroundScoring:
    """Scores checkpoints of a run in the background, one at a time, in the order of their steps.

    A hard link keeps the encoder of a waiting checkpoint, even if its files in checkpoints/ are removed. A process that
    fails is a warning and counts in `failed`; its checkpoint is not tried again until the run is resumed.
    """

    def __init__(
        self, run: Path, section: EvaluationSection, console: Console, *, command: Command | None = None
    ) -> None:
        """`command` is for tests; default a process of m2dx.jobs.evaluation_process."""
        assert section.every is not None
        self.run, self.every, self.console = run, section.every, console
        self.device = "cpu" if section.device == "auto" else section.device
        self.threads = section.threads or max((os.cpu_count() or 1) // 4, 1)
        self.folder = run / WAITING_FOLDER
        self.waiting: deque[int] = deque()
        self.failed = 0
        self._command = command or self._own_command
        self._process: subprocess.Popen[bytes] | None = None
        self._warned = False

    def __enter__(self) -> BackgroundScoring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process, and says which checkpoints still wait; a resumed run scores them."""
        if self._process is not None:
            end_child(self._process)
            self._process = None
        if self.waiting:
            self.console.print(f"not scored yet: {steps_text(self.waiting)}; --resume scores them")

    def recover(self, step: int, *, total_steps: int) -> None:
        """Queues the checkpoints without scores that the part of the run before `step` has left."""
        drop_step_scores(self.run, after=step)
        scored = {found.step for found in read_step_scores(self.run).scores}
        links = CheckpointFolder(self.folder).encoder_steps()
        checkpoints = CheckpointFolder(self.run / "checkpoints")
        for other in links:
            if other > step or other in scored:
                self._drop(other)
        due = (other for other in checkpoints.encoder_steps() if other % self.every == 0)
        kept = {other for other in due if other < total_steps}
        for other in sorted({*links, *kept} - scored):
            if other <= step:
                self._take(other, checkpoints.encoder(other))

    def take(self, step: int, encoder: Path) -> None:
        """Queues the encoder's weights after a step, if that step is due. The file may be removed afterwards."""
        if step % self.every == 0:
            self._take(step, encoder)
            if len(self.waiting) > MANY_WAITING and not self._warned:
                self._warned = True
                logger.warning(
                    "scoring is slower than training: %d checkpoints wait, and take space on the disk. All will be "
                    "scored; a higher evaluation.every or evaluation.threads avoids it",
                    len(self.waiting),
                )

    def poll(self) -> None:
        """Handles a process that has ended, and starts the next one; returns at once."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            self._ended(self.waiting.popleft(), code)
        if self.waiting:
            self._start(self.waiting[0])

    def finish(self) -> signal.Signals | None:
        """Waits until all are scored (None), or until a signal asks to stop, and returns that signal."""
        self.poll()
        if self.waiting:
            steps = steps_text(self.waiting)
            self.console.print(f"being scored: {steps} (Ctrl-C leaves the rest for --resume)")
        with StopRequests() as requests:
            while self.waiting and requests.received is None:
                time.sleep(_POLL_SECONDS)
                self.poll()
        return requests.received if self.waiting else None

    def _take(self, step: int, encoder: Path) -> None:
        try:
            keep_file(encoder, self._link(step))
        except OSError as error:
            self._fail(step, f"its checkpoint could not be kept: {error}")
        else:
            self.waiting.append(step)

    def _start(self, step: int) -> None:
        try:
            with open(self._log(step), "wb") as log:
                command, gpus = self._command(step, self._link(step)), "" if self.device == "cpu" else None
                self._process = start_child(command, output=log, threads=self.threads, gpus=gpus)
        except OSError as error:
            self.waiting.popleft()
            self._drop(step)
            self._fail(step, f"its process could not be started: {error}")

    def _ended(self, step: int, code: int) -> None:
        self._drop(step)
        try:
            found = [score for score in read_step_scores(self.run).scores if score.step == step]
        except OSError as error:
            self._fail(step, str(error))
            return
        if code == 0 and found:
            scores = [f"{of.task} {of.protocol} {100 * of.mean:.1f}" for of in (line.score for line in found)]
            self.console.print(f"scores of step {step}: {', '.join(scores)}")
            with contextlib.suppress(OSError):
                if self._log(step).stat().st_size == 0:
                    self._log(step).unlink()
            return
        how = "without scores" if code == 0 else f"with exit code {code}"
        if code < 0:
            how = f"by {signal.Signals(-code).name}"
        why = f"; {KILLED_EVALUATION}" if code == -signal.SIGKILL else ""
        self._fail(step, f"its process ended {how}{_last_line(self._log(step))}; see {self._log(step)}{why}")

    def _fail(self, step: int, reason: str) -> None:
        self.failed += 1
        text = "step %d has no scores: %s. Training goes on (%d evaluations have failed)"
        logger.warning(text, step, reason, self.failed)

    def _drop(self, step: int) -> None:
        with contextlib.suppress(OSError):
            self._link(step).unlink()

    def _link(self, step: int) -> Path:
        return CheckpointFolder(self.folder).encoder(step)

    def _log(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.log"

    def _own_command(self, step: int, encoder: Path) -> list[str]:
        arguments = map(str, (step, encoder, self.run, os.getpid(), self.device, self.threads))
        return module_command("m2dx.jobs.evaluation_process", *arguments)


def discard_waiting(run: Path) -> None:
    """Removes the encoders that wait for scores, of a run that resumes without evaluation during training."""
    waiting = CheckpointFolder(run / WAITING_FOLDER)
    for step in waiting.encoder_steps():
        waiting.encoder(step).unlink()


def keep_file(source: Path, target: Path) -> None:
    """Makes a hard link to a file, or a copy on a disk without links; an existing target stays as it is."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with open(source, "rb") as original:
            replace_file(target, lambda file: shutil.copyfileobj(original, file))


def steps_text(steps: Iterable[int]) -> str:
    """Such as "steps 10, 20 and 30"."""
    names = [str(step) for step in steps]
    if len(names) == 1:
        return f"step {names[0]}"
    return f"steps {', '.join(names[:-1])} and {names[-1]}"


def _last_line(log: Path) -> str:
    """A colon and the last line of a log, which tells most about an error; empty without a line."""
    with contextlib.suppress(OSError):
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        return f": {last}" if last else ""
    return ""
