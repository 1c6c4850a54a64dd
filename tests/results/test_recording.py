"""What evaluations record."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import m2dx
from m2dx.contract.components import Score
from m2dx.contract.host import PluginRecord
from m2dx.encoder.audio import load_any_encoder, random_encoder
from m2dx.encoder.config import EncoderConfig
from m2dx.encoder.weights import write_export
from m2dx.jobs import core
from m2dx.model.vit import Encoder
from m2dx.recipe.loading import recipe_to_mapping
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.results import scoring
from m2dx.results.records import Division, Protocol, fingerprint, read_records
from m2dx.results.scores import read_scores, read_step_scores
from m2dx.results.scoring import Scoring, encoder_path, folder_of_encoder, scoring_device


class Fixed(m2dx.Evaluator):
    """Gives the same score to all."""

    name = "fixed"

    def __init__(self, *, value: float = 0.5) -> None:
        self.value = value

    def evaluate(
        self, encoder: m2dx.ClipEncoder, task: m2dx.EvaluationTask, *, seeds: tuple[int, ...]
    ) -> list[Score]:
        return [Score(task.name, "accuracy", self.value, None, (self.value,), "fixed", {"k": 1})]


class Own(Encoder):
    """A ViT of a plugin, which reads a value while it is made."""

    name = "own"

    def __init__(self, grid: m2dx.PatchGrid, size: m2dx.ViTSize) -> None:
        super().__init__(grid, size)
        self.drawn = torch.rand(()).item()


class Plugin:
    @m2dx.hookimpl
    def evaluators(self) -> list[type]:
        return [Fixed]

    @m2dx.hookimpl
    def backbones(self) -> list[type]:
        return [Own]


@pytest.fixture
def host() -> m2dx.PluginHost:
    host = m2dx.PluginHost({"m2dx": core})
    host._load(PluginRecord("extra", "m2dx-extra", "1.2"), Plugin)
    return host


def notes_recipe(make: Any, make_wav: Any, host: Any, folder: Path, *overrides: str) -> Any:
    """A recipe with a task of eight clips, scored by `Fixed`."""
    parts = ("train", "train", "valid", "test")
    lines = [f"{make_wav(f'{n}.wav', seed=n)},{'ab'[n % 2]},{parts[n // 2]}" for n in range(8)]
    (folder / "clips.csv").write_text("\n".join(["path,label,split", *lines]))
    evaluation = (
        f"evaluation={{tasks: {{tones: {{dataset: {{name: csv, path: {folder / 'clips.csv'}}}}}}}, "
        "evaluators: {mine: {name: fixed, value: 0.25}}, seeds: [3, 4]}"
    )
    return make(evaluation, *overrides, with_host=host)


def test_an_evaluation_appends_a_record_per_score(
    tiny_recipe: Any, host: m2dx.PluginHost, console: Console, make_wav: Any, tmp_path: Path
) -> None:
    recipe = notes_recipe(tiny_recipe, make_wav, host, tmp_path)
    encoders = [
        random_encoder(recipe.audio, recipe.model, mean=-7.0, std=4.0, seed=seed) for seed in (0, 0, 1)
    ]
    (tmp_path / "away.pt").touch()
    run_folder = recipe.output / recipe.name
    (run_folder / "encoder").mkdir(parents=True)
    folders = [run_folder, folder_of_encoder(recipe.output / "evaluation", tmp_path / "away.pt"), run_folder]
    for encoder, folder in zip(encoders, folders, strict=True):
        Scoring.of(recipe, host).run(encoder, console, folder)
    found = read_records([recipe.output])
    assert found.broken == () and len(found.records) == 9
    first, random_weights, mean_logmel = found.records[:3]
    assert (first.encoder.name, first.encoder.path) == (recipe.name, str(run_folder / "encoder"))
    assert first.protocol == Protocol("mine", "fixed", {"value": 0.25}) and first.seeds == (3, 4)
    assert (first.mean, first.values, first.details) == (0.25, (0.25,), {"k": 1})
    assert first.division == Division(1, (4, 2, 2)) and (first.clips, first.classes, first.bad_clips) == (
        8,
        2,
        0,
    )
    assert (first.unit_seconds, first.short_clips, first.dataset) == (0.5, "pad", "csv")
    assert first.versions["m2dx-extra"] == "1.2"
    assert {"m2dx", "torch", "numpy", "python"} < first.versions.keys()
    assert first.device == "cpu" and abs((datetime.now(UTC) - first.date).total_seconds()) < 600
    assert (random_weights.encoder.name, mean_logmel.encoder.name) == ("random_weights", "mean_logmel")
    assert random_weights.encoder.path is None and mean_logmel.encoder.parameters is None
    # the same weights from elsewhere, and other weights
    own = [record.encoder for record in found.records[::3]]
    assert (own[1].name, own[1].path) == ("away", str(tmp_path / "away.pt"))
    assert own[0].sha256 == own[1].sha256 != own[2].sha256
    assert (
        len({record.encoder.sha256 for record in found.records}) == 4
    )  # the baselines are the same each time


def test_scores_are_written_before_an_evaluator_that_failed_is_told(
    tiny_recipe: Any, host: m2dx.PluginHost, console: Console, make_wav: Any, tmp_path: Path
) -> None:
    wrong = "evaluation.evaluators={bad: {name: fixed, value: 2.0}, mine: {name: fixed}}"
    recipe = notes_recipe(tiny_recipe, make_wav, host, tmp_path, wrong)
    encoder = random_encoder(recipe.audio, recipe.model, mean=-7.0, std=4.0, seed=0)
    text = (
        r"evaluator bad \('fixed' of plugin 'extra'\) on tones: of pretrained, accuracy must be in \[0, 1\]"
    )
    with pytest.raises(m2dx.PluginError, match=text):
        Scoring.of(recipe, host).run(encoder, console, tmp_path / "run")
    with pytest.raises(m2dx.PluginError, match=text):
        Scoring.of(recipe, host).run_step(encoder, 3, tmp_path / "run")
    scores = read_scores(tmp_path / "run" / "scores.json")
    assert [score.protocol for score in scores] == ["mine"] * 3
    assert [(item.step, item.score.protocol) for item in read_step_scores(tmp_path / "run").scores] == [
        (3, "mine")
    ]
    assert len(read_records([recipe.output]).records) == 4


@pytest.mark.parametrize(
    ("init_from", "baselines", "scored"),
    [
        (None, None, ["pretrained", "random_weights", "mean_logmel"]),
        ("start.pth", None, ["pretrained", "start", "random_weights", "mean_logmel"]),
        ("start.pth", "[mean_logmel]", ["pretrained", "mean_logmel"]),
        ("start.pth", "[]", ["pretrained"]),
        ("away.pth", None, ["pretrained", "random_weights", "mean_logmel"]),
        (None, "[{}/start.pth, random_weights]", ["pretrained", "start.pth", "random_weights"]),
        ("start.pth", "[start, {}/other/encoder]", ["pretrained", "start", "other"]),
        (None, "[starter]", ["pretrained", "starter"]),
        (None, "[{0}/other/encoder, {0}/a/other]", ["pretrained", "{0}/other/encoder", "{0}/a/other"]),
    ],
)
def test_what_training_started_from_is_a_baseline(
    init_from: str | None,
    baselines: str | None,
    scored: list[str],
    tiny_recipe: Any,
    host: m2dx.PluginHost,
    console: Console,
    make_wav: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = [f"init_from={tmp_path / init_from}"] if init_from else []
    own += [f"evaluation.baselines={baselines.format(tmp_path)}"] if baselines else []
    recipe = notes_recipe(tiny_recipe, make_wav, host, tmp_path, *own)
    encoder, start = (
        random_encoder(recipe.audio, recipe.model, mean=-7.0, std=4.0, seed=seed) for seed in (0, 1)
    )
    export = tmp_path / "start.pth"
    config = EncoderConfig.of_run({"recipe": recipe_to_mapping(recipe)})
    for folder in (export, tmp_path / "other" / "encoder", tmp_path / "a" / "other"):
        write_export(folder, start.encoder, config)
    scored = [name.format(tmp_path) for name in scored]
    Scoring.of(recipe, host).run(encoder, console, recipe.output / recipe.name)
    assert [score.encoder for score in read_scores(recipe.output / recipe.name / "scores.json")] == scored
    text = console.export_text()
    assert ("ahead of every baseline in 0 of 1 score" in text) == (len(scored) > 1)
    assert ("not among the baselines" in caplog.text) == (init_from == "away.pth")
    if "start" in scored:
        record = read_records([recipe.output]).records[1]
        assert (record.encoder.name, record.encoder.path) == ("start", str(export))
        assert record.encoder.sha256 == fingerprint(load_any_encoder(export))
    for record in read_records([recipe.output]).records:
        if record.encoder.name not in ("random_weights", "mean_logmel", "starter", recipe.name):
            assert record.encoder.sha256 == fingerprint(start) and record.encoder.path is not None


@pytest.mark.parametrize(("backbone", "expected"), [("vit", Encoder), ("own", Own)])
def test_checks_see_an_encoder_of_the_recipes_backbone(
    backbone: str,
    expected: type,
    tiny_recipe: Any,
    host: m2dx.PluginHost,
    make_wav: Any,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(Fixed, "check_encoder", lambda _, encoder, task: seen.append(encoder))
    recipe = notes_recipe(tiny_recipe, make_wav, host, tmp_path, f"model.backbone={backbone}")
    state = torch.get_rng_state()
    Scoring.of(recipe, host)
    assert type(seen[0].encoder) is expected and torch.equal(torch.get_rng_state(), state)
    random = random_encoder(recipe.audio, recipe.model, mean=-7.0, std=4.0, seed=0, host=host)
    assert type(random.encoder) is expected and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", ["check", "check_encoder"])
def test_an_evaluator_whose_check_fails_is_named(
    method: str, tiny_recipe: Any, host: m2dx.PluginHost, make_wav: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Fixed, method, lambda *given: 1 // 0, raising=False)
    recipe = notes_recipe(tiny_recipe, make_wav, host, tmp_path)
    text = rf"evaluation\.evaluators\.mine \('fixed' of plugin 'extra'\): {method} failed .*on tones: ZeroDivisionError"
    with pytest.raises(m2dx.PluginError, match=text):
        Scoring.of(recipe, host)


@pytest.mark.parametrize(
    ("baseline", "told"),
    [
        (
            "random_weight",
            r"evaluation.baselines: must be start, random_weights, .* paths of encoders, .*random_weight",
        ),
        ("empty.pth", "evaluation.baselines: .*empty.pth"),
    ],
)
def test_a_baseline_that_is_no_encoder_is_told_before_anything_is_trained(
    baseline: str, told: str, tiny_recipe: Any, host: m2dx.PluginHost, make_wav: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty.pth").touch()
    recipe = notes_recipe(
        tiny_recipe, make_wav, host, tmp_path, f"evaluation.baselines=[{tmp_path}/{baseline}]"
    )
    with pytest.raises(m2dx.RecipeError, match=told):
        Scoring.of(recipe, host)


@pytest.mark.parametrize(
    ("evaluation", "train", "device"),
    [("auto", "cpu", "cpu"), ("cpu", "cuda", "cpu"), ("cuda:3", "cpu", "cuda:3"), ("auto", "cuda", "cuda")],
)
def test_encoders_are_scored_where_the_evaluation_says(
    evaluation: str, train: str, device: str, tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "pick_device", lambda name, **field: torch.device(name))
    recipe = tiny_recipe(f"evaluation.device={evaluation}", f"train.device={train}")
    assert str(scoring_device(recipe)) == device


def test_scores_of_an_encoder_whose_name_is_no_text_go_to_its_folder_again(tmp_path: Path) -> None:
    encoder = tmp_path / os.fsdecode(b"caf\xe9.pt")
    folders = {folder_of_encoder(tmp_path / "evaluation", encoder) for _ in range(2)}
    assert len(folders) == 1 and encoder_path(folders.pop()) == encoder.resolve()


@pytest.mark.parametrize("other", [{}, {"f_min": 20.0}, {"f_max": 4000.0}, {"num_heads": 4}])
def test_a_fingerprint_tells_encoders_apart_whose_weights_are_alike(other: dict[str, Any]) -> None:
    def of(*, num_heads: int = 3, **audio: Any) -> str:
        section = AudioSection(crop_seconds=0.32, **audio)
        model = ModelSection(size="tiny", depth=1)
        encoder = random_encoder(section, model, mean=-7.0, std=4.0, seed=0)
        encoder.encoder.size = replace(encoder.encoder.size, num_heads=num_heads)
        return fingerprint(encoder)

    assert (of(**other) == of()) == (not other)
