"""Names of files give no orders to the terminal, and end no command."""

import io
import logging
import os

import pytest
from rich.table import Table
from rich.text import Text

from m2dx.cli.terminal import PrintableFormatter, Terminal, print_error, printable

NAMES = {
    "title": ("\x1b]0;owned\x07.wav", "\\x1b]0;owned\\x07.wav"),
    "clear": ("\x1b[2J.wav", "\\x1b[2J.wav"),
    "return": ("good.wav\rbad", "good.wav\\x0dbad"),
    "C1": ("\x9b31m.wav", "\\x9b31m.wav"),
    "no UTF-8": (b"caf\xe9.wav".decode("utf-8", "surrogateescape"), "caf\\udce9.wav"),
    "usual": ("caf\u00e9 [1].wav", "caf\u00e9 [1].wav"),
}


@pytest.mark.parametrize(("name", "shown"), NAMES.values(), ids=NAMES.keys())
def test_control_characters_are_printed_as_their_codes(name: str, shown: str) -> None:
    assert printable(name) == shown
    out = io.StringIO()
    console = Terminal(file=out, width=80, force_terminal=False)
    console.print(f"cannot use {name}: missing")
    table = Table("file")
    table.add_row(name)
    console.print(table)
    record = logging.LogRecord("m2dx", logging.WARNING, "", 0, "leaves out %s", (name,), None)
    assert out.getvalue().count(shown) == 2
    console.print(Text(name))
    assert not set(out.getvalue()) & {"\x1b", "\x9b", "\x07", "\r", "\udce9"}
    assert PrintableFormatter("%(message)s").format(record) == f"leaves out {shown}"
    out.getvalue().encode("utf-8")


@pytest.mark.parametrize(
    ("is_terminal", "soft_wrap", "lines"),
    [
        (True, False, ["report of ten words:", "/a/folder/of/twenty-six/x", "and more"]),
        (True, True, ["report of ten words: /a/folder/of/twenty-six/x and more"]),
        (False, False, ["report of ten words: /a/folder/of/twenty-six/x and more"]),
    ],
)
def test_lines_break_between_words_of_a_terminal_alone(
    is_terminal: bool, soft_wrap: bool, lines: list[str]
) -> None:
    out = io.StringIO()
    options = {"soft_wrap": True} if soft_wrap else {}
    console = Terminal(file=out, width=20, force_terminal=is_terminal)
    console.print("report of ten words: /a/folder/of/twenty-six/x and more", **options)
    assert [line.rstrip() for line in out.getvalue().splitlines()] == lines


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("  a folder of many files", ["  a folder of many", "  files"]),
        ("  a.csv  label and fold of it", ["  a.csv  label and", "         fold of it"]),
        ("  a/long/name.csv  of it", ["  a/long/name.csv", "  of it"]),
        ("a.csv  label and fold of it", ["a.csv  label and", "fold of it"]),
    ],
)
def test_indented_lines_go_on_below_their_text(line: str, lines: list[str]) -> None:
    out = io.StringIO()
    Terminal(file=out, width=20, force_terminal=True).print(line)
    assert out.getvalue().splitlines() == lines


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_or_a_reader_that_is_gone_ends_no_work(
    terminal: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.openpty() if terminal else os.pipe()
    with open(writer, "w", encoding="utf-8") as file:
        console = Terminal(file=file)
        assert console.is_terminal == terminal
        os.close(reader)
        console.print("step 1")
        console.print("step 2")
        assert console.quiet
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one line", ["error: one line"]),
        (
            f"name: {'x' * 70_000}; choose another",
            [f"error: name: {'x' * 594} ... {'x' * 284}; choose another"],
        ),
        ("\n".join(map(str, range(1000))), ["error: 0", *map(str, range(1, 30)), "... and 970 more lines"]),
    ],
)
def test_errors_are_of_a_readable_length(
    text: str, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    print_error(text)
    assert capsys.readouterr().err.splitlines() == shown
