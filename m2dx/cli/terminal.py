"""What commands print on: no name of a file can give orders to the terminal, or end a command."""

from __future__ import annotations

import errno
import logging
import os
from typing import Any

from rich.console import Console
from rich.text import Text

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"} | {
    code: f"\\u{code:04x}" for code in range(0xDC80, 0xDD00)
}  # bytes of names that are no UTF-8


def printable(text: str) -> str:
    """The text with control characters (escape codes among them) and undecodable bytes as their codes."""
    return text.translate(_CONTROL)


class Terminal(Console):
    """A console whose texts are printed as they are, without markup, with control characters as their codes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, **options)  # paths and types have brackets

    def print(self, *objects: Any, **options: Any) -> None:
        """Breaks lines between words on a terminal; not in a log, nor with `soft_wrap`, as for what is to be copied."""
        if options.setdefault("soft_wrap", not self.is_terminal) is False:
            options = {"overflow": "ignore", "crop": False, **options}  # no word is broken or cut
        super().print(*objects, **options)

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
