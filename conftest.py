"""What the tests of the core and those of the plugins share: the host, a console, a task of tones, written tables."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

import m2dx
from m2dx.cli.terminal import Terminal
from m2dx.results import ResultTable
from m2dx.results.formats import comma_separated, latex, markdown, terminal

RATE = 8000  # Hz, of tones


@pytest.fixture(scope="session")
def host() -> m2dx.PluginHost:
    """The components that are installed."""
    return m2dx.PluginHost.discover()


@pytest.fixture
def console() -> Console:
    """A console whose text `export_text` gives."""
    return Terminal(record=True, width=200, file=io.StringIO())


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write no report.html, which takes most of the time of a few steps."""
    monkeypatch.setattr("m2dx.jobs.train.write_page", lambda run: run.folder / "report.html")


class ListDataset(m2dx.Dataset):
    """Clips that a test gives."""

    name = "list"

    def __init__(self, clips: Sequence[m2dx.Clip]) -> None:
        self.given = list(clips)

    def clips(self, split: str | None = None) -> list[m2dx.Clip]:
        return [clip for clip in self.given if split in (None, clip.split)]


@pytest.fixture
def list_dataset() -> type[ListDataset]:
    return ListDataset


@pytest.fixture
def tone(tmp_path: Path) -> Callable[..., m2dx.Clip]:
    """Writes a noisy tone (or chord) for each label "low", "mid" or "high", and gives its clip."""
    frequencies = {"low": 300.0, "mid": 2000.0, "high": 3300.0}
    count = iter(range(10_000))

    def make(*labels: str, seconds: float = 0.1, **fields: object) -> m2dx.Clip:
        number = next(count)
        time = np.arange(round(seconds * RATE)) / RATE
        wav = np.random.default_rng(number).normal(scale=0.02, size=len(time))
        for label in labels:
            wav += 0.2 * np.sin(2 * np.pi * frequencies[label] * (1 + 0.01 * (number % 5)) * time)
        path = tmp_path / f"{number:04d}.wav"
        soundfile.write(path, wav, RATE)
        return replace(m2dx.Clip(path, labels=labels), **fields)  # type: ignore[arg-type]

    return make


@pytest.fixture
def check_written() -> Callable[[ResultTable], None]:
    """Checks that a table comes back from CSV, that no line of Markdown and LaTeX lacks a column, and 80 columns."""

    def check(table: ResultTable) -> None:
        head, *lines = csv.reader(io.StringIO(comma_separated(table)))
        assert head == ["group", table.heading, *table.info, "column", "mean", "ci95", "marks"]
        found = [(*line[:-3], float(line[-3]), float(line[-2]) if line[-2] else None) for line in lines]
        assert found == _cells_of(table)
        marked = [cell for g in table.groups for row in g.rows for cell in row.cells if cell and cell.marks]
        assert sum(bool(line[-1]) for line in lines) == len(marked)
        for line in markdown(table).splitlines():
            if line.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", line)) == len(table.headings) + 1, line
        text = latex(table)
        body = text.partition("\\toprule")[2].partition("\\bottomrule")[0]
        for line in body.splitlines():
            if line.endswith("\\\\") and "multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) == len(table.headings) - 1, line
        bare = re.sub(r"\\[\\{}]", "", text)
        assert bare.count("{") == bare.count("}") and re.search(r"(?<!\\)[#~]|[±×→†‡ηλ∪↓↑]", text) is None
        assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
        _check_terminal(table)

    return check


def _check_terminal(table: ResultTable) -> None:
    """Nothing of the table is lost on 80 columns, and no score is broken."""
    console = Console(width=80, markup=False, file=io.StringIO())
    with console.capture() as capture:
        console.print(*(part for part in terminal(table, console.width) if isinstance(part, Table)))
    lines = capture.get().splitlines()
    assert max(map(cell_len, lines)) <= console.width
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]
    rows = [row for group in table.groups for row in group.rows]
    scores = Counter(
        f"{cell.text} [{','.join(cell.marks)}]" if cell.marks else cell.text
        for row in rows
        for cell in row.cells
        if cell
    )
    assert scores <= Counter(cell for line in cells for cell in line)
    words = {word for line in cells for cell in line for word in cell.split()}
    texts = (*table.headings, *(row.label for row in rows), *(group.name for group in table.groups))
    assert {word for text in texts for word in text.split()} <= words


def _cells_of(table: ResultTable) -> list[tuple[Any, ...]]:
    return [
        (group.name, row.label, *row.info, column, cell.mean, cell.ci95)
        for group in table.groups
        for row in group.rows
        for column, cell in zip(table.column_titles, row.cells, strict=True)
        if cell is not None
    ]
