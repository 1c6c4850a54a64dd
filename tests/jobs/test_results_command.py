"""`m2dx results`: what it prints, writes and refuses, and the tables that packages bring."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from result_records import ESC50
from typer.testing import CliRunner

from m2dx import cli
from m2dx.contract.errors import PluginError
from m2dx.results.published import TABLE_GROUP, published_tables
from m2dx.results.records import ResultRecord, append_records
from m2dx.results.table import ResultTable


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["results", *arguments])


def test_the_command_prints_and_writes_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    append_records(Path("runs/results.jsonl"), [ESC50])
    with Path("runs/results.jsonl").open("a") as file:
        file.write("{\n")
    result = run()
    assert result.exit_code == 0 and "| lungs | esc50 |" in result.stdout
    assert "warning: runs/results.jsonl:2: not JSON" in result.stderr and "1 line skipped" in result.stderr
    result = run("runs", "-o", "table.tex")
    assert result.exit_code == 0 and "\\toprule" in Path("table.tex").read_text(encoding="utf-8")
    assert run("--format", "csv").stdout.startswith("group,encoder,")
    assert "lungs" in run("--format", "rich").stdout
    assert run("--format", "rich", "-o", "x.md").exit_code == 2


def test_a_name_of_any_bytes_is_written_and_gives_no_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = replace(ESC50.encoder, name="caf\udce9\x1b[2J")
    append_records(Path("runs/results.jsonl"), [replace(ESC50, encoder=encoder)])
    assert run("-o", "table.TEX").exit_code == 0
    written = Path("table.TEX").read_text(encoding="utf-8")
    assert "\\toprule" in written and "udce9" in written
    for form in ("markdown", "csv", "rich"):
        result = run("--format", form)
        assert result.exit_code == 0 and "udce9" in result.stdout and "\x1b" not in result.stdout, form


def test_the_command_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there must be results in runs/results.jsonl" in str(run().exception)
    Path("empty.jsonl").write_text("{}\n")
    error = str(run("empty.jsonl").exception)
    assert "there are no records in empty.jsonl" in error and "empty.jsonl:1: not a record: date" in error


METRICS = {
    "auroc": {"value": 0.75, "low": 0.7, "high": 0.82},
    "ece": {"value": None, "low": None, "high": None},
}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--metric", "auroc"), ",auroc,"),
        (("--metric", "auroc"), ",75,6,"),
        (("--metric", "accuracy"), ",90,1.25,"),
        (("--metric", "f1"), "no record has the metric 'f1'; the records have auroc, ece"),
        (("--metric", "ece"), "no record has the metric 'ece'"),  # of which nothing can be said
        (("--metric", "auroc", "--table", "fixed"), "leave one out"),
    ],
)
def test_another_metric_is_shown_of_the_records_that_have_it(
    arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    records = [ESC50, replace(ESC50, details={"metrics": METRICS})]
    append_records(tmp_path / "results.jsonl", records)
    result = run(str(tmp_path), "--format", "csv", *arguments)
    assert told in (str(result.exception) if result.exit_code else result.stdout)


def test_two_scores_of_a_protocol_have_another_metric_once(tmp_path: Path) -> None:
    scored = replace(ESC50, details={"metrics": {**METRICS, "f1": METRICS["auroc"]}})
    both = [scored, replace(scored, metric="f1", mean=0.5)]
    append_records(tmp_path / "results.jsonl", both)
    shown = run(str(tmp_path), "--metric", "auroc").stdout
    assert shown.count("| auroc |") == 1 and "older" not in shown
    (line,) = [line for line in run(str(tmp_path), "--metric", "f1").stdout.splitlines() if "| f1 |" in line]
    assert "50.0" in line  # as it was recorded


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    append_records(tmp_path / "results.jsonl", [ESC50])
    code = (
        "import sys; from typer.testing import CliRunner; from m2dx.cli import app\n"
        "result = CliRunner().invoke(app, ['results', sys.argv[1], '--format', 'rich'])\n"
        "assert result.exit_code == 0, result.exception\n"
        "assert not {'torch', 'm2dx.jobs.core'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


class Fixed:
    """A published table."""

    def about(self) -> list[str]:
        return ["fixed: a table"]

    def beside(self, records: Sequence[ResultRecord], *, every: bool = False) -> ResultTable:
        return ResultTable(f"{len(records)} {every}", "encoder", (), (), ())


TABLES = {"fixed": Fixed()}
SAME = {"fixed": Fixed()}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes packages with published tables the installed ones, by the values of their entry points."""

    def install(*values: str) -> None:
        points = [EntryPoint("papers", value, TABLE_GROUP) for value in values]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)

    return install


def test_packages_bring_published_tables(
    packages: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    append_records(Path("runs/results.jsonl"), [ESC50])
    packages(f"{__name__}:TABLES")
    assert run("--table", "list").stdout == "fixed: a table\n"
    assert "**1 True**" in run("--table", "fixed", "--all").stdout
    assert "no published table 'fix'; did you mean 'fixed'" in str(run("--table", "fix").exception)


def test_without_published_tables_the_command_says_what_has_them(packages: Callable[..., None]) -> None:
    packages()
    assert "install m2dx-tasks" in run("--table", "list").stdout
    assert "there is no published table 'm2d-x-iii'" in str(run("--table", "m2d-x-iii").exception)


def test_published_tables_that_cannot_be_used_are_blamed(
    packages: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    packages(f"{__name__}:LACKING", f"{__name__}:TABLES")
    assert published_tables() == TABLES  # which is none's fault
    assert "LACKING of a package failed: AttributeError" in caplog.text
    packages(f"{__name__}:TABLES", f"{__name__}:SAME")
    with pytest.raises(
        PluginError, match=r"SAME of a package must have keys of their own, .* has fixed, too"
    ):
        published_tables()
