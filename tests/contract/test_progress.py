"""How far a piece of work is, in a terminal of 80 columns and in a pipe."""

import io
import re

import pytest
from rich.console import Console

from m2dx.contract import progress
from m2dx.contract.progress import ProgressLine
from m2dx.contract.wording import clock

METRICS = "loss 2.8330  m2d 1.2491  diagnosis 1.5839  lr 4.52e-04  20 clips/s  rankme 51.7"


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Clock:
    watch = Clock()
    monkeypatch.setattr(progress.time, "monotonic", watch)
    return watch


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_terminal_has_two_lines(watch: Clock, columns: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=columns, height=20, force_terminal=True, color_system="standard")
    with ProgressLine(console, "step", kept=True) as line:
        line.update(0, 11120)
        for step in (1, 2):
            watch.now = 22.5 * step
            line.update(step, 11120, METRICS)
    plain = re.sub(r"\x1b\[[0-9;?]*m", "", file.getvalue())
    drawn = [text for text in re.split(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]", plain) if text.strip()]
    last, below = next((n, text) for n, text in reversed(list(enumerate(drawn))) if text.startswith("step"))
    assert re.fullmatch(r"step 2/11120 +[━╸╺ ]{4,} +elapsed 0:45  left 69:29:15 *", below), below
    assert " ".join(" ".join(drawn[last + 1 :]).split()) == " ".join(METRICS.split())
    assert all(len(text) <= columns for text in drawn)


def test_a_pipe_has_whole_lines_at_times(watch: Clock) -> None:
    file = io.StringIO()
    with ProgressLine(Console(file=file, width=80), "step", done=2) as line:
        line.update(2, 10)
        for step in range(3, 11):
            watch.now += 20
            line.update(step, 10, f"{METRICS} {'x' * 80}")
            line.update(step, 10)
    lines = file.getvalue().splitlines()
    assert [text.split("  ")[:3] for text in lines] == [
        ["step 3/10", "elapsed 0:20", "left 2:20"],
        ["step 5/10", "elapsed 1:00", "left 1:40"],
        ["step 7/10", "elapsed 1:40", "left 1:00"],
        ["step 9/10", "elapsed 2:20", "left 0:20"],
        ["step 10/10", "elapsed 2:40", "left 0:00"],
    ]
    assert all(METRICS in text for text in lines)


def test_what_is_not_enabled_or_has_no_text_says_nothing(watch: Clock) -> None:
    file = io.StringIO()
    for terminal, enabled in ((True, False), (False, True)):
        console = Console(file=file, force_terminal=terminal)
        with ProgressLine(console, "step", enabled=enabled) as line:
            line.update(1, 2, "" if enabled else METRICS)
    assert file.getvalue() == ""


def test_what_is_printed_meanwhile_goes_to_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(Console(stderr=True, force_terminal=True), "clip") as line:
        line.update(1, 2)
        print("a row of a table")
    assert capsys.readouterr().out == "a row of a table\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (45, "0:45"), (431, "7:11"), (3599.6, "1:00:00"), (3723, "1:02:03")]
)
def test_a_clock_is_read_at_once(seconds: float, text: str) -> None:
    assert clock(seconds) == text
