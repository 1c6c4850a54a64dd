"""Evaluation while a run trains: a separate process scores its checkpoints, one after another.

Training never waits for that process or fails with it; only `finish`, after the training, waits.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console

from m2dx.contract.components import Score
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.recipe.schema import EvaluationSection
from m2dx.results.scores import drop_step_scores, read_step_scores
from m2dx.training.child import end_child, module_command, start_child
from m2dx.training.memory import KILLED_EVALUATION
from m2dx.training.signals import StopRequests

logger = logging.getLogger(__name__)

LOGS = "scores_by_step"  # folder in a run's folder with what the processes that score print
MANY_WAITING = 3
_POLL_SECONDS = 0.1

OnScores = Callable[[int, Sequence[Score]], None]
"""Takes the scores of a step, as soon as they are there."""


class BackgroundScoring(AbstractContextManager["BackgroundScoring"]):
    """Scores checkpoints of a run in the background, one at a time, in the order of their steps.

    The encoders of the steps in `waiting` stay in checkpoints/. A process that fails is a warning and counts in
    `failed`; its checkpoint is not tried again until the run is resumed.
    """

    def __init__(
        self, run: Path, section: EvaluationSection, console: Console, *, on_scores: OnScores | None = None
    ) -> None:
        assert section.every is not None
        self.run, self.every, self.console = run, section.every, console
        self.device = "cpu" if section.device == "auto" else section.device
        self.threads = section.threads or max((os.cpu_count() or 1) // 4, 1)
        self.checkpoints = CheckpointFolder(run / "checkpoints")
        self.waiting: deque[int] = deque()
        self.failed = 0
        self._on_scores = on_scores
        self._process: subprocess.Popen[bytes] | None = None
        self._warned = False

    def __exit__(self, *_: object) -> None:
        """Ends the process, and says which checkpoints still wait; a resumed run scores them."""
        if self._process is not None:
            end_child(self._process)
            self._process = None
        if self.waiting:
            self.console.print(f"not scored yet: {steps_text(self.waiting)}; --resume scores them")

    def recover(self, step: int, *, total_steps: int, again: bool = False) -> None:
        """Queues the encoders without scores that the part of the run before `step` has left.

        `again`: that of `step` in any case, since its checkpoint is from before its scores.
        """
        drop_step_scores(self.run, after=step - again)
        scored = {found.step for found in read_step_scores(self.run).scores}
        for other in self.checkpoints.encoder_steps():
            if other % self.every == 0 and other <= step and other < total_steps and other not in scored:
                self.waiting.append(other)

    def take(self, step: int) -> None:
        """Queues the encoder of a step, if that step is due."""
        if step % self.every:
            return
        self.waiting.append(step)
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
            step = self.waiting.popleft()
            self.checkpoints.drop_encoders(keep=self.waiting)
            self._ended(step, code)
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

    def _start(self, step: int) -> None:
        try:
            self._log(step).parent.mkdir(parents=True, exist_ok=True)
            with self._log(step).open("wb") as log:
                command = self.command(step, self.checkpoints.encoder(step))
                gpus = "" if self.device == "cpu" else None
                self._process = start_child(command, output=log, threads=self.threads, gpus=gpus)
        except OSError as error:
            self.waiting.popleft()
            self._fail(step, f"its process could not be started: {error}")

    def _ended(self, step: int, code: int) -> None:
        try:
            found = [item.score for item in read_step_scores(self.run).scores if item.step == step]
            log = self._log(step).read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            self._fail(step, str(error))
            return
        if found:
            scores = [f"{score.task} {score.protocol} {100 * score.mean:.1f}" for score in found]
            self.console.print(f"scores of step {step}: {', '.join(scores)}")
            if self._on_scores is not None:
                self._on_scores(step, found)
        if code == 0 and found:
            if not log:
                self._log(step).unlink()
            return
        how, why = "without scores" if code == 0 else f"with exit code {code}", ""
        if code < 0:
            how = f"by {signal.Signals(-code).name}"
            why = f"; {KILLED_EVALUATION}" if how == "by SIGKILL" else ""
        told = f": {log.splitlines()[-1]}" if log else ""  # the last line tells most about an error
        self._fail(step, f"its process ended {how}{told}; see {self._log(step)}{why}")

    def _fail(self, step: int, reason: str) -> None:
        self.failed += 1
        text = "step %d lacks scores: %s. Training goes on (%d evaluations have failed)"
        logger.warning(text, step, reason, self.failed)

    def _log(self, step: int) -> Path:
        return self.run / LOGS / f"step-{step:08d}.log"

    def command(self, step: int, encoder: Path) -> list[str]:
        """That of the process that scores the encoder of a step."""
        arguments = map(str, (step, encoder, self.run, os.getpid(), self.device, self.threads))
        return module_command("m2dx.jobs.evaluation_process", *arguments)


def steps_text(steps: Sequence[int]) -> str:
    """Such as "steps 10, 20 and 30"."""
    *others, last = map(str, steps)
    return f"steps {', '.join(others)} and {last}" if others else f"step {last}"
