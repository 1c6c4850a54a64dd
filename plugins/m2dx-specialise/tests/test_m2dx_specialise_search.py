"""Whole searches of seconds: what they leave, that a stop changes nothing, and an answer for every input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from m2dx_specialise import search, training
from m2dx_specialise.command import commands
from m2dx_specialise.search import specialise
from m2dx_specialise.state import Request
from typer.testing import CliRunner

import m2dx
from m2dx.testing.samples import SoundFiles, write_csv


def decisions(folder: Path) -> dict[str, Any]:
    """What a search has decided, without what depends on the clock."""
    found = json.loads((folder / "verdict.json").read_text())
    runs = {name: (run["steps"], run["accuracy"], run["loss"]) for name, run in found["runs"].items()}
    return {key: found[key] for key in ("kind", "sentence", "chosen", "winner", "best", "test")} | {
        "runs": runs
    }


@pytest.mark.usefixtures("few_steps")
def test_a_search_leaves_what_it_promises_and_goes_on_after_stops(
    notes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Any
) -> None:
    request = Request(data=notes, starts=(str(start),), minutes=1)
    whole = specialise(request, output=tmp_path / "whole", console=console)
    assert whole.verdict.kind in ("specialise", "use", "plain")
    for name in (
        "index.html",
        "verdict.json",
        "division.csv",
        "scores.json",
        "predictions.jsonl",
        "state.json",
    ):
        assert (whole.folder / name).is_file()
    assert m2dx.load_encoder(whole.encoder).embed_dim > 0
    assert whole.classifier is not None
    assert m2dx.load_classifier(whole.classifier).label_names == ("bass", "brass", "guitar")
    page = (whole.folder / "index.html").read_text(encoding="utf-8")
    assert whole.verdict.sentence.split(":")[0] in page and "Rung 2 of 2" in page and 'src="http' not in page
    told = decisions(whole.folder)
    assert len(told["runs"]) == 3

    calls = {"left": 0}
    for name, module in (("train", search), ("trial", search)):
        wrapped = getattr(module, name)

        def stops(*given: Any, wrapped: Callable[..., Any] = wrapped) -> Any:
            found = wrapped(*given)
            calls["left"] -= 1
            if calls["left"] < 0:
                raise training.Stopped("SIGTERM")
            return found

        monkeypatch.setattr(module, name, stops)
    for stop in range(20):
        calls["left"] = 1 + stop
        try:
            again = specialise(request, output=tmp_path / "again", resume=stop > 0)
        except training.Stopped:
            continue
        break
    assert stop > 1 and decisions(again.folder) == told
    assert specialise(request, output=tmp_path / "again", resume=True).verdict == whole.verdict  # once more


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("labels", ["none", "one"])
def test_without_labels_there_is_an_encoder_and_no_verdict(
    labels: str, notes: Path, start: Path, tmp_path: Path
) -> None:
    lines = notes.read_text(encoding="utf-8").splitlines()[1:]
    rows = [(line.split(",")[0], "one" if labels == "one" else "", 0.7) for line in lines]
    write_csv(tmp_path / "plain.csv", "path,label,duration", rows)
    request = Request(
        data=tmp_path / "plain.csv", starts=(str(start),), label_from="none" if labels == "none" else None
    )
    found = specialise(request, output=tmp_path / "found")
    assert found.verdict.kind == "none" and found.classifier is None and found.recipe is not None
    assert (
        found.verdict.sentence.startswith("No verdict: ") and "which is no verdict" in found.verdict.sentence
    )
    assert m2dx.load_encoder(found.encoder).embed_dim > 0


def ten(folder: Path) -> Path:
    files = SoundFiles(folder / "ten")
    for number in range(10):
        files.add_tone(f"{'ab'[number % 2]}/{number}.wav", 300.0 + number, seconds=0.5, seed=number)
    return folder / "ten"


def broken(folder: Path) -> Path:
    (folder / "broken").mkdir()
    (folder / "broken" / "a.wav").write_bytes(b"RIFF")
    return folder / "broken"


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    ("make", "options", "answer"),
    [
        (lambda folder: folder / "none", (), "DATA must be a folder or a list, but there is no"),
        (empty, (), "there must be audio files in"),
        (broken, (), "none of 1 file can be read"),
        (ten, (), "has 10 clips, too few to train on or to judge by (at least 40)"),
        (ten, ("--start", "nowhere"), "--start must be an encoder"),
        (ten, ("--start", "starter", "--start", "starter"), "each once, but has starter, starter"),
        (ten, ("--minutes", "0"), "--minutes must be more than 0, but is 0"),
        (ten, ("--resume",), "has no search to resume"),
        (ten, ("-o", "."), "must be a new folder, but holds something else"),
        (ten, ("--label-from", "folder:7"), "must be one of"),
    ],
)
def test_what_cannot_be_has_an_answer_in_a_line(
    make: Callable[[Path], Path], options: tuple[str, ...], answer: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make(tmp_path)
    result = CliRunner().invoke(commands, [str(data), "--yes", *options])
    assert isinstance(result.exception, m2dx.M2dxError), result.output
    text = str(result.exception)
    assert answer in text and "\n" not in text
    assert not (tmp_path / "specialised").exists()


def test_where_nobody_can_be_asked_the_options_are_named(notes: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(commands, [str(notes), "-o", str(tmp_path / "new")])
    assert isinstance(result.exception, m2dx.RecipeError) and "add --yes" in str(result.exception)
    assert "60 clips" in result.output and not (tmp_path / "new").exists()


@pytest.mark.usefixtures("few_steps")
def test_the_plan_says_what_would_run(notes: Path, start: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        commands, [str(notes), "--plan-only", "--start", str(start)], catch_exceptions=False
    )
    for text in ("60 clips", "machine:", "rung 1 of 2", "published for about as many", "no time for"):
        assert text in result.output
    assert not list(tmp_path.iterdir())


def test_recordings_of_other_requests_are_not_mixed(notes: Path, start: Path, tmp_path: Path) -> None:
    from m2dx_specialise.state import State

    request = Request(data=notes, starts=(str(start),), label_from="column:label")
    State.open(tmp_path / "new", request, resume=False).save(findings=[])
    asked = State.open(tmp_path / "new", Request(data=notes, starts=(str(start),)), resume=True)
    assert asked.request.label_from == "column:label"
    with pytest.raises(m2dx.RecipeError, match="was started with minutes 60"):
        State.open(tmp_path / "new", Request(data=notes, starts=(str(start),), minutes=5), resume=True)
    (tmp_path / "new" / "state.json").write_text("{")
    with pytest.raises(m2dx.CheckpointError, match="must be what a search has saved"):
        State.open(tmp_path / "new", request, resume=True)
