"""Whole searches of seconds: what they leave, that a stop changes nothing, and an answer for every input."""

import io
import json
import re
import runpy
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from m2dx_specialise import candidates, command, judge, listing, page, rungs, search, training
from m2dx_specialise.audit import Audit
from m2dx_specialise.budget import Budget
from m2dx_specialise.command import commands
from m2dx_specialise.division import divide
from m2dx_specialise.parts import Parts
from m2dx_specialise.search import Specialised, specialise
from m2dx_specialise.state import STARTER, Request, State
from searches_killed import decisions, kill_and_resume, run
from typer.testing import CliRunner

import m2dx
from m2dx.cli.terminal import Terminal
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.weights import read_weights
from m2dx.recipe.loading import recipe_from_mapping
from m2dx.results.predictions import read_predictions
from m2dx.testing.evaluators import tone_task
from m2dx.testing.samples import SoundFiles, write_csv
from m2dx.training.run_folder import LOCK, running_alone

EXAMPLES = Path(__file__).parents[3] / "examples"


def stopped_ever_later(
    request: Request, output: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Specialised, int]:
    """What a search gives that is stopped after each trial and training, one later each time; and how often."""
    calls = {"left": 0}
    for name, module in (("train", rungs), ("trial", rungs)):
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
            return specialise(request, output=output, resume=stop > 0), stop
        except training.Stopped:
            continue
    raise AssertionError("it never ends")


@pytest.mark.usefixtures("two_candidates")
def test_a_search_leaves_what_it_promises_and_goes_on_after_stops(
    notes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Any
) -> None:
    request = Request(data=notes, starts=(str(start),), minutes=1)
    whole = specialise(request, output=tmp_path / "whole", console=console)
    assert whole.verdict.kind in ("specialise", "use", "random", "plain")
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
    about = read_weights(whole.classifier).config.classifier
    assert about is not None and (about.model_extra or {})["task"] == "notes"
    page = (whole.folder / "index.html").read_text(encoding="utf-8")
    assert whole.verdict.sentence.split(":")[0] in page and "Rung 2 of 2" in page and 'src="http' not in page
    told = decisions(whole.folder)
    assert len(told["runs"]) == 3
    # candidates are judged by what they have learnt, and their exports name no recording
    runs = State.open(whole.folder, request, resume=True).under("run").values()
    assert all(0 not in run["settings"]["layers"] for run in runs)
    recordings = {clip.path.name for clip in CsvDataset(path=whole.folder / "pretraining.csv").clips()}
    for export in (whole.folder / "runs").glob("*/encoder/*.json"):
        assert not [name for name in recordings if name in export.read_text()], export
    test, labelled = told["test"], CsvDataset(path=whole.folder / "division.csv").clips()
    assert {clip.split for clip in labelled} == {"1", "2", "3", "4", "5"}
    # what learnt nothing is tested on all folds, what was trained on all but the validation part, by two trainings
    parts = Parts.of(labelled)
    assert parts.crossed is not None and test["at_hand"][0]["clips"] == len(labelled)
    assert {row["clips"] for row in test["trained"]} == {len(labelled) - len(parts.valid)}
    other = told["again"]["name"]
    assert other.replace("_again", "") == told["winner"] and "once more" in page
    recipe = (whole.folder / "runs" / other / "recipe.yaml").read_text()
    assert "again_pretraining.csv" in recipe and "/pretraining.csv" not in recipe
    of_start, of_random = test["at_hand"][:2], test["at_hand"][2]
    assert [row["rival"] for row in of_start] == [judge.PLAIN, of_random["own"]]
    random = {
        name: of
        for name, of in State.open(whole.folder, request, resume=True).under("baseline").items()
        if name.startswith(judge.RANDOM)
    }
    best = judge.best_of(random)
    assert (of_random["own"], of_random["rival"], len(random)) == (best, judge.PLAIN, 3)
    # the classifier, its classes on the page and the verdict tell the same test
    rows = [row for row in (*test["trained"], *test["at_hand"]) if row["own"] == told["chosen"]]
    own = {key: test["classifier"][key] for key in ("accuracy", "clips")}
    assert all(own == {key: row[key] for key in own} for row in rows) and rows
    line = judge.of_classifier(test)
    assert line in page and line in " ".join(console.file.getvalue().split())
    assert f" of {own['clips']} clips are right by" in page  # by clips; the accuracy is the mean of the folds

    # the classifier of a start does not become that of its encoder
    other = Request(data=notes, starts=(str(whole.classifier),))
    search.Search(State(tmp_path / "kept", other), m2dx.PluginHost.discover(), console)._keep(
        str(whole.classifier)
    )
    assert read_weights(tmp_path / "kept" / "encoder").config.classifier is None
    assert m2dx.load_encoder(tmp_path / "kept" / "encoder").embed_dim > 0

    again, stops = stopped_ever_later(request, tmp_path / "again", monkeypatch)
    assert stops > 1 and decisions(again.folder) == told
    assert specialise(request, output=tmp_path / "again", resume=True).verdict == whole.verdict  # once more


def test_the_time_before_a_stop_counts(
    notes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        time.sleep(0.5)
        raise training.Stopped("SIGTERM")

    monkeypatch.setattr(search.Search, "run", stopped)
    taken = []
    for resume in (False, True):
        with pytest.raises(training.Stopped):
            specialise(Request(data=notes, starts=(str(start),)), output=tmp_path / "new", resume=resume)
        taken.append(json.loads((tmp_path / "new" / "state.json").read_text(encoding="utf-8"))["seconds"])
    assert taken[0] >= 0.5 and taken[1] >= taken[0] + 0.5


@pytest.mark.usefixtures("two_candidates")
def test_what_training_gains_is_given_and_tested_by_two_trainings(
    notes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = judge.Gain.of
    monkeypatch.setattr(
        judge.Gain,
        "of",
        lambda *pair, for_others=False: judge.Gain(9.0, 5.0, 13.0) if for_others else of(*pair),
    )
    found = specialise(Request(data=notes, starts=(str(start),)), output=tmp_path / "new")
    assert found.verdict.kind == "specialise" and found.recipe is not None
    told = decisions(found.folder)
    test, winner = told["test"], told["winner"]
    assert told["chosen"] == test["classifier"]["encoder"] == winner
    parts = Parts.of(CsvDataset(path=found.folder / "division.csv").clips())
    assert {row["clips"] for row in test["trained"]} == {len(parts.train) + len(parts.test)}
    # the classifier is of the first training, and so is what is said of it
    tested = {clip.path.name for clip in parts.test}
    assert test["classifier"]["clips"] == len(tested)
    items = read_predictions(found.folder)[0]
    names = {key[0]: sorted(item.clip.path.name for item in of) for key, of in items.items()}
    assert names[winner] == names[str(start)] == sorted(tested)
    weights = [
        m2dx.load_encoder(path).state_dict() for path in (found.encoder, found.folder / "runs" / winner)
    ]
    assert all(torch.equal(weights[0][name], of) for name, of in weights[1].items())
    assert [point["labels"] for point in test["curve"]] == sorted(point["labels"] for point in test["curve"])


@pytest.mark.usefixtures("two_candidates")
def test_a_search_without_time_to_train_has_a_verdict_and_a_page(
    notes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Any
) -> None:
    monkeypatch.setattr(rungs, "divide_time", lambda costs, *given, **more: Budget((), tuple(costs)))
    request = Request(data=notes, starts=(str(start),))
    found = specialise(request, output=tmp_path / "new", console=console)
    assert found.verdict.kind in ("use", "random", "plain") and found.recipe is None
    assert "no time for" in console.file.getvalue() and "nothing could be trained" in found.verdict.sentence
    assert "Rung" not in (found.folder / "index.html").read_text(encoding="utf-8")
    assert found.classifier is not None and m2dx.load_classifier(found.classifier).label_names
    # where log-mel statistics are as good, the classifier is on them
    given = search.Search(State.open(found.folder, request, resume=True), m2dx.PluginHost.discover(), console)
    parts = Parts.read(found.folder / "division.csv", tmp_path / "none")
    given._classify(judge.PLAIN, parts.task("test", tmp_path / "features", seed=0), None)
    plain = m2dx.load_classifier(found.classifier)
    assert plain.network.layer == 0 and plain.network.encoder.embed_dim == 80


@pytest.mark.usefixtures("two_candidates")
def test_a_random_network_is_of_use_where_others_of_its_shape_are_too(
    notes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide, gains = judge.decide, list[judge.Gain]()

    def lucky(*given: Any, **options: Any) -> judge.Verdict:
        gains.append(given[3])
        return decide(*given, **options) if gains[1:] else judge.Verdict("random", "Use it.")

    monkeypatch.setattr(judge, "decide", lucky)
    monkeypatch.setattr(rungs, "divide_time", lambda costs, *given, **more: Budget((), tuple(costs)))
    found = specialise(Request(data=notes, starts=(str(start),)), output=tmp_path / "new")
    rows = decisions(found.folder)["test"]["at_hand"][2:]  # after those of the start
    row = min(rows, key=lambda of: of["gain"]["low"])
    assert len({of["own"] for of in rows}) == len(rows) == search.RANDOM_SEEDS
    assert len(gains) == 2 and gains[1].low == row["gain"]["low"]  # the least sure of them decides
    assert all(of["own"] in (found.folder / "index.html").read_text(encoding="utf-8") for of in rows)
    assert len({of["accuracy"] for of in rows}) > 1  # other networks
    assert (found.verdict.kind == "random") != (f"is luck: {row['own']} has" in found.verdict.sentence)


def test_a_random_network_is_given_as_it_was_scored(
    notes: Path, start: Path, tmp_path: Path, console: Any
) -> None:
    state = State(tmp_path, Request(data=notes, starts=(str(start),)))
    own = search.Search(state, m2dx.PluginHost.discover(), console)
    wav = torch.rand(1, 16_000, generator=torch.Generator().manual_seed(0)) - 0.5
    networks = candidates.random_networks(candidates.Setting(tmp_path / "runs", notes, 60, 60, 5.0))
    for name, network in networks.items():
        own._write_random(name, network)
        own._keep(name)
        given = m2dx.load_encoder(tmp_path / "encoder")
        assert given.encoder.grid.patch_size == network.patch_size
        assert torch.equal(given.clip(wav), own._encoder(name).clip(wav)), name
    assert len({network.patch_size for network in networks.values()}) == len(networks) == 3
    assert not (tmp_path / "encoder" / "licences").exists()


def test_the_licences_of_a_start_go_along(notes: Path, tmp_path: Path, console: Any) -> None:
    state = State(tmp_path, Request(data=notes, starts=(STARTER,)))
    search.Search(state, m2dx.PluginHost.discover(), console)._keep(STARTER)
    assert any((tmp_path / "encoder" / "licences").iterdir())
    assert m2dx.load_encoder(tmp_path / "encoder").embed_dim == m2dx.load_encoder(STARTER).embed_dim


@pytest.mark.slow
@pytest.mark.usefixtures("two_candidates")
def test_a_search_that_is_killed_five_times_comes_to_the_same_verdict(
    notes: Path, start: Path, tmp_path: Path
) -> None:
    arguments = ["specialise", str(notes), "--start", str(start), "--minutes", "1"]
    before = time.monotonic()
    run(arguments, tmp_path / "whole", tmp_path / "log")
    seconds = time.monotonic() - before
    told = kill_and_resume(arguments, tmp_path / "killed", tmp_path / "log", seconds=seconds, kills=5, seed=0)
    assert len(told) >= 3
    assert decisions(tmp_path / "killed") == decisions(tmp_path / "whole")


@pytest.fixture
def example(two_candidates: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Any]]:
    """Runs examples/specialise.py on recordings, in their folder; what it has in the end."""

    def run_example(data: Path) -> dict[str, Any]:
        monkeypatch.chdir(data.parent)
        monkeypatch.setattr("sys.argv", ["specialise.py", data.name, "1"])
        return runpy.run_path(str(EXAMPLES / "specialise.py"), run_name="__main__")

    return run_example


def test_with_one_class_there_is_an_encoder_and_no_verdict(
    notes: Path, example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rate in (8000, 48000):
        SoundFiles(tmp_path, rate).add_tone(f"{rate}.wav", 300.0, seconds=0.7)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    paths = [line.split(",")[0] for line in notes.read_text(encoding="utf-8").splitlines()[1:]]
    rows = [(path, "one", 0.7) for path in (*paths, "8000.wav", "48000.wav", "bad.wav")]
    write_csv(tmp_path / "one.csv", "path,label,duration", rows)
    found = example(tmp_path / "one.csv")["found"]
    text = found.verdict.sentence
    assert text.startswith("No verdict: all labels are 'one'") and "which is no verdict" in text
    assert found.verdict.kind == "none" and found.classifier is None and found.recipe is not None
    assert "1 of 63 files cannot be read" in (found.folder / "index.html").read_text(encoding="utf-8")
    assert "m2dx.train(recipe) would train longer" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_classifies(
    notes: Path, example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(notes, tmp_path / "notes.csv")
    found = example(tmp_path / "notes.csv")["found"]
    assert found.verdict.kind != "none" and "guitar: 0." in capsys.readouterr().out


@pytest.mark.parametrize(("label_from", "problem"), [("none", "there are no labels"), (None, None)])
def test_without_labels_all_is_trained_on(label_from: str | None, problem: str | None, notes: Path) -> None:
    listed = listing.read(notes, label_from=label_from)
    division = divide(listed, Audit((), (), (), frozenset()))
    parts = Parts.of([*division.rows, *division.pool])
    assert parts.problem == problem and len(parts.others) == (60 if problem else 0)


def ten(folder: Path) -> Path:
    files = SoundFiles(folder / "ten")
    for number in range(10):
        files.add_tone(f"{'ab'[number % 2]}/{number}.wav", 300.0 + number, seconds=0.5, seed=number)
    return folder / "ten"


def broken(folder: Path) -> Path:
    (folder / "broken").mkdir()
    (folder / "broken" / "a.wav").write_bytes(b"RIFF")
    return folder / "broken"


def one_list(folder: Path) -> Path:
    write_csv(folder / "list.csv", "path,label", [("a.wav", "a")])
    return folder / "list.csv"


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
        (empty, ("--general", "empty"), "no audio files in empty"),
        (ten, ("--minutes", "0"), "--minutes must be more than 0, but is 0"),
        (ten, ("--resume",), "has no search to resume"),
        (ten, ("-o", "."), "must be a new folder, but holds something else"),
        (ten, ("--label-from", "folder:7"), "must be one of"),
        (one_list, ("--labels", "list.csv"), "list.csv is a list; give one of them"),
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


SPEAKERS = ("ann", "bob", "cyd", "dee", "eve")


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (["", "never"], None),
        (["y"], None),
        (["7", "x", " "], None),
        (["1"], ("name:1", None)),  # the groups are found anew
        (["2"], ("name:2", None)),
        (["0", "3"], ("none", None)),
        (["4"], (None, "name:2")),  # the labels stay
        (["5"], (None, "none")),
        (["q"], "quit"),
    ],
)
def test_a_number_changes_what_was_found(
    answers: list[str], found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SoundFiles(tmp_path / "data")
    for number in range(40):
        name = f"{'ab'[number % 2]}/{SPEAKERS[number // 8]}_{'xy'[number // 4 % 2]}_{number:02}.wav"
        files.add_tone(name, 300.0, seconds=0.1, seed=number)
    listed = listing.read(tmp_path / "data")
    console = Terminal(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(console, "input", lambda: answers.pop(0))
    if found == "quit":
        with pytest.raises(typer.Exit):
            command._ask(listed, console=console, yes=False)
        return
    assert command._ask(listed, console=console, yes=False) == found
    assert len(answers) == (1 if "never" in answers else 0)
    shown = console.file.getvalue().split("Enter if")[0]  # type: ignore[attr-defined]
    assert "5: no groups" in shown and "6:" not in shown and max(map(len, shown.splitlines())) <= 80
    assert command._ask(listed, console=console, yes=True) is None


def test_neither_labels_nor_groups_can_be_wanted(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, wanted = Terminal(file=io.StringIO(), force_terminal=True, width=80), ["labels", "groups"]

    def answer() -> str:
        shown = console.file.getvalue().split("what else")[-1]  # type: ignore[attr-defined]
        return re.findall(rf"(\d+): no {wanted.pop(0)}", shown)[-1] if wanted else ""

    monkeypatch.setattr(console, "input", answer)
    ask = partial(command._ask, console=console, yes=False)
    listed = search.recordings(State(tmp_path, Request(data=notes)), ask)
    assert (listed.label, listed.group, wanted) == (None, None, [])


@pytest.mark.parametrize(
    ("name", "is_folder", "folder"),
    [("set.1", True, "set.1"), ("set.1", False, "set"), ("a.csv", False, "a"), ("a", True, "a")],
)
def test_the_default_folder_has_the_name_of_the_recordings(
    name: str, is_folder: bool, folder: str, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir() if is_folder else (tmp_path / name).touch()
    assert Request(data=tmp_path / name).folder == Path("specialised") / folder


def test_where_nobody_can_be_asked_the_options_are_named(notes: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(commands, [str(notes), "-o", str(tmp_path / "new")])
    assert isinstance(result.exception, m2dx.RecipeError) and "add --yes" in str(result.exception)
    assert "60 clips" in result.output and not (tmp_path / "new").exists()


@pytest.mark.usefixtures("few_steps")
def test_the_plan_says_what_would_run(
    notes: Path, start: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, others = tmp_path_factory.mktemp("others"), list[str]()
    for option, name in (("--general", "drums"), ("--noise", "noise")):
        rows = (EXAMPLES / "sounds" / f"{name}.csv").read_text(encoding="utf-8").splitlines()[1:9]
        paths = [(EXAMPLES / "sounds" / row.split(",")[0],) for row in rows]
        write_csv(folder / f"{name}.csv", "path", paths)
        others += [option, str(folder / f"{name}.csv")]
    result = CliRunner().invoke(
        commands,
        [str(notes), "--plan-only", "--start", str(start), *others],
        catch_exceptions=False,
    )
    for text in (
        "60 clips",
        "machine:",
        "rung 1 of 2",
        "published for",
        "no time for",
        "with replay",
        "with noise",
    ):
        assert text in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("few_steps")
def test_a_plan_that_is_stopped_ends_without_a_hint(
    notes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(*_: Any) -> None:
        raise training.Stopped("SIGTERM")

    monkeypatch.setattr(rungs, "trial", trial)
    (tmp_path / "state.json").write_text("{}")  # of a search before
    result = CliRunner().invoke(
        commands, [str(notes), "--plan-only", "--start", str(start), "-o", str(tmp_path)]
    )
    assert result.exit_code == 128 + signal.SIGTERM and "--resume" not in result.output


def test_each_candidate_has_its_own_curve(tmp_path: Path) -> None:
    state = State(tmp_path, Request(data=tmp_path))
    state.content["baseline:a"] = {"accuracy": 0.4}
    for name, steps, accuracy in (("1_a", 100, 0.5), ("2_a", 120, 0.9), ("1_a", 300, 0.6)):
        run = {"title": "a, further", "steps": steps, "accuracy": accuracy}
        state.content[f"run:further_{name}-{steps}"] = run
    (picture,) = page._curves(state)
    assert picture.label == "a, further: 60.0 at step 300; a, further: 90.0 at step 120"


@pytest.mark.parametrize(("on_gpu", "size", "batch"), [(False, "tiny", 32), (True, "small", 128)])
def test_every_candidate_is_a_recipe(
    on_gpu: bool, size: str, batch: int, notes: Path, start: Path, tmp_path: Path
) -> None:
    more = {"general": notes, "num_general": 600, "noise": notes, "on_gpu": on_gpu}
    setting = candidates.Setting(tmp_path, notes, 60, 60, 5.0, **more)  # type: ignore[arg-type]
    host, names = m2dx.PluginHost.discover(), set()
    for network in candidates.random_networks(setting).values():
        for candidate in candidates.propose((str(start),), setting, network, labelled=True):
            recipe = recipe_from_mapping(candidate.recipe(setting, 1000), host=host, source=candidate.name)
            assert recipe.train.batch_size == batch
            own = recipe.model.size, recipe.model.patch_size
            assert candidate.start is not None or own == (size, network.patch_size)
            names.add(candidate.extra or candidate.name)
            assert bool(recipe.augmentations) == (candidate.extra == "shifts")
    extras = {"labels", "shifts", "replay", "noise", "teacher"}
    assert names == {"further_1_small", "scratch", "scratch_mae"} | extras


def test_the_plan_leaves_time_for_the_classifiers_of_all_folds(
    notes: Path, start: Path, tmp_path: Path, console: Any
) -> None:
    setting, left = candidates.Setting(tmp_path, notes, 60, 60, 5.0), []
    for in_turn, again in ((0.0, False), (100.0, False), (100.0, True)):
        state = State(tmp_path, Request(data=notes, starts=(str(start),), minutes=60))
        state.content |= {f"baseline:{name}": {"seconds": 10.0, "in_turn": in_turn} for name in ("a", "b")}
        state.content["baseline:statistics"] = {"seconds": 1.0, "in_turn": 0.1 * in_turn}
        left.append(rungs.Rungs(state, m2dx.PluginHost(), console, setting, again)._left())
    assert left[0] - left[1] == pytest.approx(3 * 100 + 2 * 10, abs=5.0)  # the clock goes on
    assert left[1] - left[2] == pytest.approx(10, abs=5.0)  # the second training is encoded, too


def test_only_what_was_trained_has_settings_by_the_validation_part(
    notes: Path, start: Path, tmp_path: Path, console: Any
) -> None:
    state, chosen = State(tmp_path, Request(data=notes)), {"c": 0.1, "layers": [0], "whiten": 0.0}
    state.save(**{f"{key}:{key}": {"settings": chosen} for key in ("baseline", "run")})
    own = search.Search(state, m2dx.PluginHost.discover(), console)
    assert own._settings("baseline") is None and own._settings("run") == chosen
    with tone_task() as task:
        score = judge.score(m2dx.load_encoder(start), task, "run", own._settings("run"))  # type: ignore[arg-type]
    assert {"c": [0.1], "layer": [0], "whiten": [0.0]}.items() <= dict(score.details).items()


def test_starts_of_one_name_are_told_apart(notes: Path, start: Path, tmp_path: Path) -> None:
    alike = Path(shutil.copytree(start, tmp_path / "small"))
    setting = candidates.Setting(tmp_path, notes, 60, 60, 5.0)
    found = candidates.propose((str(start), str(alike)), setting, candidates.SMALL, labelled=True)
    titles = [of.title for of in found if of.start and not of.extra]
    assert titles == ["small (1), further", "small (2), further"]


@pytest.mark.parametrize("scratch_first", [False, True])
def test_candidates_of_the_better_network_come_first(
    scratch_first: bool, notes: Path, start: Path, tmp_path: Path
) -> None:
    setting, options = candidates.Setting(tmp_path, notes, 60, 60, 5.0), {"scratch_first": scratch_first}
    found = candidates.propose((str(start),), setting, candidates.SMALL, labelled=True, **options)
    expected = ["small, further, with shifts", "small, further, with labels", "small, further"]
    scratch = "M2D from scratch, with shifts"
    assert [of.title for of in found[:3]] == ([scratch, *expected[:2]] if scratch_first else expected)


@pytest.mark.parametrize(
    ("count", "told_apart"), [(0, False), (1, False), (2, True), (2000, True), (2001, False)]
)
def test_recordings_are_told_apart_where_they_are_neither_few_nor_many(
    count: int, told_apart: bool, notes: Path, start: Path, tmp_path: Path
) -> None:
    setting = candidates.Setting(tmp_path, notes, max(count, 1), count, 5.0)
    for candidate in candidates.propose((str(start),), setting, candidates.SMALL, labelled=True):
        recipe = candidate.recipe(setting, 1000)
        assert ("recordings" in recipe["tasks"], "recordings" in recipe["data"]["sets"]) == (told_apart,) * 2
        assert ("labels" in recipe["tasks"]) == (candidate.extra in ("labels", "shifts"))
        assert (
            recipe["train"]["precision"] == "auto"
        )  # bf16 would take the time of ten trainings on some processors


def test_a_folder_has_one_search_at_a_time(notes: Path, start: Path, tmp_path: Path) -> None:
    request, folder = Request(data=notes, starts=(str(start),)), tmp_path / "new"
    with (
        running_alone(folder),
        pytest.raises(m2dx.RecipeError, match=r"but process \d+ on .* works there; .* another folder \(-o\)"),
    ):
        specialise(request, output=folder)
    folder.mkdir()
    (folder / LOCK).touch()  # left by one that was killed
    State.open(folder, request, resume=False).save(findings=[])
    with running_alone(folder), pytest.raises(m2dx.RecipeError, match="one process at a time"):
        specialise(request, output=folder, resume=True)


def test_recordings_of_other_requests_are_not_mixed(notes: Path, start: Path, tmp_path: Path) -> None:
    request = Request(data=notes, starts=(str(start),), label_from="column:label")
    State.open(tmp_path / "new", request, resume=False).save(findings=[])
    asked = State.open(tmp_path / "new", Request(data=notes, starts=(str(start),)), resume=True)
    assert asked.request.label_from == "column:label"
    with pytest.raises(m2dx.RecipeError, match="began with minutes 60"):
        State.open(tmp_path / "new", Request(data=notes, starts=(str(start),), minutes=5), resume=True)
    state = tmp_path / "new" / "state.json"
    older = state.read_text()
    state.write_text(re.sub(r'"version": \d+', '"version": 0', older))
    with pytest.raises(m2dx.RecipeError, match="another version"):
        specialise(request, output=tmp_path / "new", resume=True)
    state.write_text("{")
    with pytest.raises(m2dx.CheckpointError, match="must be what a search has saved"):
        State.open(tmp_path / "new", request, resume=True)
