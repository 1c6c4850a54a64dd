"""`m2dx superb`: what it refuses, and what it records. s3prl is not run here."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from m2dx_superb import scoring
from m2dx_superb.command import commands
from m2dx_superb.jobs import Outcome, read_job, write_outcome
from m2dx_superb.statistics import Statistics
from m2dx_tasks.papers import TABLES
from typer.testing import CliRunner

import m2dx
from m2dx.results import read_records
from m2dx.results.formats import markdown

Superb = Callable[..., Any]


@pytest.fixture
def superb(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Superb:
    """Runs the command; the process of s3prl is replaced by one that scores 0.75, and 0.05 less with each job."""

    def process(command: list[str], **options: object) -> SimpleNamespace:
        if "fail" in command[-1]:
            return SimpleNamespace(returncode=3)
        for number, file in enumerate(command[command.index("m2dx_superb.worker") + 1 :]):
            value = 0.75 - 0.05 * number
            settings: dict[str, object] = {"lr": 1e-4, "seed": 0}
            write_outcome(read_job(Path(file)), Outcome(value, settings, Statistics(-8.0, 4.0, 9, 9.0)))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", process)

    def run(task: str, *arguments: str, encoder: str = str(sample / "encoder"), data: str = "") -> Any:
        given = [task, "--encoder", encoder, "--data", data or str(sample / task), *arguments]
        if "-o" not in given[: given.index("--") if "--" in given else None]:
            given[1:1] = ["-o", str(tmp_path / "runs")]
        return CliRunner().invoke(commands, given)

    return run


def error(result: Any) -> str:
    assert isinstance(result.exception, m2dx.M2dxError), result.output
    return str(result.exception)


def test_a_score_is_recorded_and_stands_beside_table_x(superb: Superb, sample: Path, tmp_path: Path) -> None:
    result = superb("ks")
    assert "ks (keyword spotting): accuracy 0.7500" in result.output
    (record,) = read_records([tmp_path / "runs"]).records
    assert (record.task, record.protocol.evaluator, record.metric, record.mean) == (
        "ks",
        "superb",
        "accuracy",
        0.75,
    )
    assert record.protocol.settings["interface"] == "problem"
    assert record.details["statistics"] == [[-8.0, 4.0]]
    assert record.encoder.path == str(sample / "encoder")
    table = TABLES["m2d-x-x"].beside([record])
    assert "75.00" in markdown(table)
    assert not any("cuts longer clips" in note for note in table.notes)  # that is of linear evaluation


def test_the_five_sessions_of_er_are_averaged(superb: Superb, tmp_path: Path) -> None:
    result = superb("er")
    assert "er fold 5: accuracy 0.5500" in result.output
    (record,) = read_records([tmp_path / "runs"]).records
    assert record.mean == pytest.approx(0.65) and record.values == (record.mean,)
    assert record.division is not None and record.division.folds == 5
    superb("er", "--fold", "2", "-o", str(tmp_path / "one"))
    (record,) = read_records([tmp_path / "one"]).records
    assert record.warnings == ("lr 0.0001, in the published scripts 1e-05", "of 1 of 5 sessions")


def test_the_control_needs_no_file(superb: Superb, tmp_path: Path) -> None:
    assert superb("sid", encoder="zeros").exit_code == 0
    (record,) = read_records([tmp_path / "runs"]).records
    assert (record.encoder.name, record.encoder.path) == ("zeros", None)


def test_a_folder_of_other_arguments_is_not_gone_on_with(superb: Superb, tmp_path: Path) -> None:
    assert superb("ks", "--", "--train.total_steps", "9").exit_code == 0
    assert superb("ks", "--", "--train.total_steps", "9").exit_code == 0
    (job,) = (tmp_path / "runs" / "superb").glob("*/ks/job.json")
    (job.parent / "train").mkdir()
    assert "must be free, or of the same task, data, encoder and arguments" in error(superb("ks"))
    assert superb("ks", "--overwrite").exit_code == 0
    assert not (job.parent / "train").exists()


def test_the_layout_is_checked_before_anything_else(superb: Superb, sample: Path, tmp_path: Path) -> None:
    text = error(superb("ks", data=str(sample / "er"), encoder="none"))
    assert "must be the folder of Speech Commands V1 in its official layout" in text
    assert "lacks speech_commands_v0.01/_background_noise_, speech_commands_test_set_v0.01" in text
    assert "is no folder" in error(superb("ks", data=str(tmp_path / "none")))


@pytest.mark.parametrize(
    "arguments", [("--fold", "2"), ("--train.total_steps", "9"), ("--fold", "6"), ("--download=3",)]
)
def test_wrong_use_is_told(superb: Superb, arguments: tuple[str, ...]) -> None:
    assert superb("ks", *arguments).exit_code == 2


def test_a_device_that_is_not_there_is_refused(superb: Superb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "but is cuda:1, and there is no CUDA device" in error(superb("ks", "--device", "cuda:1"))


def test_a_process_that_fails_leaves_no_score(superb: Superb, tmp_path: Path) -> None:
    output = tmp_path / "fail"
    assert "its process ended with code 3" in error(superb("ks", "-o", str(output)))
    assert not (output / scoring.RESULTS_FILE).exists()
