"""Ctrl-C and SIGTERM as a request to stop after the step at hand."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

_ONE_KEYSTROKE_SECONDS = 1.0


class StopRequests:
    """Catches SIGINT and SIGTERM while it is entered; a second Ctrl-C interrupts at once.

    Under torchrun one Ctrl-C arrives twice, from the terminal and from torchrun: within a second they count as one.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._interrupted = float("inf")  # when the first SIGINT came, s

    def __enter__(self) -> StopRequests:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            if now > self._interrupted + _ONE_KEYSTROKE_SECONDS:
                raise KeyboardInterrupt
            self._interrupted = min(self._interrupted, now)
        self.received = signal.Signals(number)
