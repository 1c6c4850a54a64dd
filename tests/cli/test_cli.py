"""The command line: what it refuses before it costs time, and what it prints."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from rich.console import Console
from typer.testing import CliRunner

import m2dx
from m2dx import cli
from m2dx.cli import reference
from m2dx.contract.errors import PluginError, RecipeError, TrainingError
from m2dx.jobs import train as pipeline
from m2dx.training.monitor import TrainingSummary

WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from m2dx.cli import app

for arguments, code in (
    (["--help"], 0),
    (["train", "--help"], 0),
    (["train", "none.yaml", "--resume", "--overwrite"], 2),
    (["encode", "encoder", "a.wav", "--long-clips", "bogus"], 2),
    (["train", "none.yaml"], 1),
    (["check", "none.yaml"], 1),
    (["evaluate", "encoder", "none.yaml"], 1),
):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, (arguments, result.output, result.exception)
    if code == 1:
        assert "none.yaml: cannot be read" in str(result.exception)
    slow = {"torch", "timm", "matplotlib", "m2dx.jobs.core"} & sys.modules.keys()
    assert not slow, (arguments, slow)
"""


def test_wrong_arguments_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, check=True)


def test_a_wrong_choice_is_told_in_plain_words() -> None:
    told = CliRunner().invoke(cli.app, ["results", "--format", "bogus"]).output
    assert "Invalid value for '--format': 'bogus' is not one of" in " ".join(told.split())


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, cli.SPINS), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_shortly_where_nobody_says_how(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {
        name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    }
    monkeypatch.setattr(sys, "argv", ["m2dx", "--version"])
    with mock.patch.dict(os.environ, kept | given, clear=True):
        with pytest.raises(SystemExit):
            cli.main()
        assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"m2dx {m2dx.__version__}\n")


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, "m2dx train"),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, "torchrun --nproc-per-node 4 -m m2dx train"),
        (
            {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"},
            "torchrun --nnodes 2 --nproc-per-node 4 -m m2dx train",
        ),
    ],
)
def test_the_command_to_go_on_with_is_one_line(
    tiny_recipe: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    command: str,
) -> None:
    summary = TrainingSummary(
        steps=3,
        total_steps=10,
        seconds=1.0,
        clips=12,
        bad_files=0,
        collapse_warnings=0,
        last_metrics={},
        stopped_by="SIGTERM",
    )
    monkeypatch.setattr(pipeline, "run_recipe", lambda *args, **options: summary)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tiny_recipe()  # writes tiny.yaml
    override = f"output={tmp_path / 'a folder whose name is long' / 'so that eighty columns are not enough'}"
    arguments = ["train", str(tmp_path / "tiny.yaml"), override]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 143
    assert f"\n  {command} {tmp_path / 'tiny.yaml'} '{override}' --resume\n" in result.output
    monkeypatch.setenv("RANK", "1")
    result = CliRunner().invoke(cli.app, arguments)
    assert (result.exit_code, result.output) == (143, "")


@pytest.mark.parametrize("error", [RecipeError, PluginError, TrainingError])
def test_errors_of_several_processes(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What all processes of a machine read alike is told once, what may be of one process by its name."""

    def fail() -> None:
        raise error("it broke")

    monkeypatch.setattr(cli, "app", fail)

    def told() -> str:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 1
        return capsys.readouterr().err.strip()

    assert told() == "error: it broke"
    monkeypatch.setenv("WORLD_SIZE", "4")
    texts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        texts.append(told())
    alike = ["error: it broke", ""]
    assert texts == (
        ["error: process 0: it broke", "error: process 1: it broke"] if error is TrainingError else alike
    )


def test_show_in_a_pipe_is_a_line_per_field() -> None:
    result = CliRunner().invoke(cli.app, ["show", "train"])
    lines = [line.split("\t") for line in result.output.splitlines()]
    assert {len(line) for line in lines} == {4}
    by_name = {line[0]: line[1:] for line in lines}
    assert by_name["train.checkpoint_every"][1:] == ["1000", "Steps between checkpoints."]


def test_show_cuts_no_name_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(
        reference, "terminal", lambda: Console(file=file, width=80, force_terminal=True, color_system=None)
    )
    assert CliRunner().invoke(cli.app, ["show", "evaluation"]).exit_code == 0
    assert "…" not in file.getvalue() and "evaluation" in file.getvalue()
