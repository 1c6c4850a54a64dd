"""Ctrl-C, SIGTERM and SIGHUP as a request to stop after the step at hand."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_ONE_KEYSTROKE_SECONDS = 1.0


class StopRequests:
    """Catches SIGINT, SIGTERM and SIGHUP while it is entered; a second Ctrl-C interrupts at once.

    SIGHUP says that the terminal is lost; where it is ignored, as under nohup, it stays so.
    Under torchrun one Ctrl-C arrives twice, from the terminal and from torchrun: within a second they count as one.
    Outside the main thread, where Python cannot catch signals, they act as they would without this.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._interrupted = float("inf")  # when the first SIGINT came, s

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is not threading.main_thread():
            logger.debug("not in the main thread: Ctrl-C, SIGTERM and SIGHUP are not caught")
            return self
        hangup = getattr(signal, "SIGHUP", None)  # Windows has none
        lost = () if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN else (hangup,)
        for number in (signal.SIGINT, signal.SIGTERM, *lost):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            if now > self._interrupted + _ONE_KEYSTROKE_SECONDS:
                raise KeyboardInterrupt
            self._interrupted = min(self._interrupted, now)
        self.received = signal.Signals(number)


class StopVotes:
    """Each step's vote of all processes on whether to stop; they have to leave the loop at the same step.

    A vote on the CPU counts at once. One on a GPU counts a step later, when it has long been copied: to wait for the
    newest would keep the GPU without work.
    """

    def __init__(self) -> None:
        self._waiting: tuple[Tensor, torch.cuda.Event] | None = None

    def count(self, vote: Tensor) -> bool:
        """Takes the share of processes that asked to stop in this step; whether to stop after it."""
        if vote.device.type != "cuda":
            return vote.item() > 0
        before, copied = self._waiting, torch.cuda.Event()
        copy = torch.empty((), dtype=vote.dtype, pin_memory=True).copy_(vote, non_blocking=True)
        copied.record()
        self._waiting = (copy, copied)
        if before is None:
            return False
        before[1].synchronize()
        return before[0].item() > 0
