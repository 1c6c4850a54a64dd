"""How far a piece of work is: two lines that change on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from m2dx.contract.wording import clock

Progress = Callable[[float, int, str], None]
"""Called with the units of work done (the one at hand in part), their total, and what comes next."""
SECONDS_BETWEEN_LINES = 30.0  # where the console is no terminal
_LAST_UNITS = 100  # that the time left is estimated from


class ProgressLine(AbstractContextManager["ProgressLine"]):
    """On a terminal what is done, a bar, time elapsed and left, and below it a text; elsewhere all that as one line.

    `update` takes what is done, the total and the text. What is `kept` stays on the terminal afterwards. Neither waits
    nor fails; `enabled` false shows nothing.
    """

    def __init__(
        self, console: Console, what: str, *, done: float = 0, kept: bool = False, enabled: bool = True
    ) -> None:
        self.console, self.what, self.enabled = console, what, enabled
        self.done, self.total, self.text = done, 0, ""
        self._started, self._printed = time.monotonic(), -float("inf")
        self._times = deque([(self._started, done)], maxlen=_LAST_UNITS)
        self._live = None
        if enabled and console.is_terminal:
            self._live = Live(
                console=console,
                get_renderable=self._shown,
                transient=not kept,
                redirect_stdout=sys.stdout.isatty(),  # elsewhere, what is printed is for a file or a pipe
            )

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: float, total: int, text: str = "") -> None:
        """Takes what is done of the total; an empty text leaves the one that is there."""
        now = time.monotonic()
        if done > self.done:
            self._times.append((now, done))
        news, self.done, self.total, self.text = bool(text), done, total, text or self.text
        if self._live is not None:
            if not self._live.is_started:
                self._live.start()
        elif self.enabled and news and (now - self._printed > SECONDS_BETWEEN_LINES or done == total):
            self._printed = now
            self.console.print(f"{self._head()}  {self._tail()}  {self.text}", soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was, but for what is kept."""
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def seconds_left(self) -> float | None:
        """At the pace of the last units; None before the first one is done."""
        (first, before), (last, done) = self._times[0], self._times[-1]
        if done == before:
            return None
        return max((last - first) / (done - before) * (self.total - done) - (time.monotonic() - last), 0.0)

    def _head(self) -> str:
        return f"{self.what} {int(self.done)}/{self.total}"

    def _tail(self) -> str:
        left = self.seconds_left()
        elapsed = f"elapsed {clock(time.monotonic() - self._started)}"
        return elapsed if left is None else f"{elapsed}  left {clock(left)}"

    def _shown(self) -> Group:
        line = Table.grid(padding=(0, 2), expand=True)
        line.add_column()
        line.add_column(ratio=1)
        line.add_column()
        line.add_row(Text(self._head()), ProgressBar(self.total, self.done), Text(self._tail()))
        return Group(line, Text(self.text, style="dim"))
