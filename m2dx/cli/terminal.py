"""What commands print on: no name of a file can give orders to the terminal, or end a command."""

from __future__ import annotations

import errno
import logging
import os
import re
import textwrap
from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"} | {
    code: f"\\u{code:04x}" for code in range(0xDC80, 0xDD00)
}  # bytes of names that are no UTF-8
_FIRST_COLUMN = re.compile(r" +\S+ {2,}")
_WRAPPER = partial(
    textwrap.wrap, break_long_words=False, break_on_hyphens=False, replace_whitespace=False, expand_tabs=False
)


def printable(text: str) -> str:
    """The text with control characters (escape codes among them) and undecodable bytes as their codes."""
    return text.translate(_CONTROL)


class Terminal(Console):
    """A console whose texts are printed as they are, without markup, with control characters as their codes."""

    def __init__(self, **options: Any) -> None:
        # paths and types have brackets; lines stay whole in a log
        super().__init__(markup=False, highlight=False, soft_wrap=True, **options)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Breaks lines of text between words on a terminal; with `soft_wrap` they stay whole, to be copied."""
        if self.is_terminal and not soft_wrap:
            objects = tuple(self._broken(item) if isinstance(item, str) else item for item in objects)
        super().print(*objects, **options)

    def _broken(self, text: str) -> str:
        return "\n".join(chain.from_iterable(map(self._lines, text.split("\n"))))

    def _lines(self, line: str) -> list[str]:
        """An indented line goes on below its text, or below the second column, such as what a file of a tree is."""
        column = _FIRST_COLUMN.match(line)
        indent = len(line) - len(line.lstrip(" "))
        if column is not None and column.end() <= self.width // 2:
            indent = column.end()
        return _WRAPPER(line, width=self.width, subsequent_indent=" " * indent) or [""]

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Prints no more where the terminal is gone, or nobody reads the pipe: the work goes on, and is saved."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        plain = (part if part.control else part._replace(text=printable(part.text)) for part in buffer)
        return super()._render_buffer(plain)  # of texts that come as rich's Text, too

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


class PrintableFormatter(logging.Formatter):
    """Log lines with control characters as their codes."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def print_error(text: str) -> None:
    """Prints an error to stderr: of many lines the first, of a long one, such as a value, its ends."""
    lines = [f"{line[:600]} ... {line[-300:]}" if len(line) > 1000 else line for line in text.splitlines()]
    if len(lines) > 40:
        lines[30:] = [f"... and {len(lines) - 30} more lines"]
    console = Terminal(stderr=True)
    console.print("error:", style="red", end=" ")
    console.print("\n".join(lines))
