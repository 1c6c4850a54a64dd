"""Classifiers that are fitted to labelled clips: what they are fitted to, what is said of them, and what is kept."""

import csv
import functools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from m2dx_classify import STATISTICS
from m2dx_classify.command import commands
from m2dx_classify.fitting import Fitted, _summary, check_request, fit_classifier
from m2dx_classify.rows import classify_clips
from m2dx_classify.sources import LabelledClips, of_folders, task_of_list, task_of_run
from typer.testing import CliRunner

import m2dx
from m2dx.contract.components import Features
from m2dx.contract.package import find_encoder
from m2dx.encoder.audio import random_encoder
from m2dx.encoder.config import EncoderConfig
from m2dx.encoder.weights import write_export
from m2dx.evaluation.features import MeanLogMel
from m2dx.evaluation.logistic import Logistic
from m2dx.recipe.loading import recipe_to_mapping
from m2dx.recipe.schema import AudioSection, ModelSection

RATE = 16_000
PITCHES = {"high": 2700.0, "low": 300.0, "mid": 900.0}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a small encoder with random weights, in a run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "tones" / "encoder"
    audio = AudioSection(crop_seconds=0.32)
    network = random_encoder(audio, ModelSection(size="tiny", depth=1), mean=-7.0, std=4.0, seed=0)
    grid = network.encoder.grid
    config = EncoderConfig(
        input_size=grid.input_size,
        patch_size=grid.patch_size,
        vit=network.encoder.size,
        audio=audio,
        mean=-7.0,
        std=4.0,
    )
    write_export(folder, network.encoder, config)
    return folder


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class, eight tones in each."""
    folder, random = tmp_path_factory.mktemp("data") / "tones", np.random.default_rng(0)
    for label, hertz in PITCHES.items():
        (folder / label).mkdir(parents=True)
        for take in range(8):
            time = np.arange(RATE // 4) / RATE
            tone = 0.3 * np.sin(2 * np.pi * hertz * random.uniform(0.9, 1.1) * time)
            soundfile.write(
                folder / label / f"{take}.wav", tone + random.normal(scale=0.05, size=time.size), RATE
            )
    return folder


@pytest.fixture
def listed(tones: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a list of the tones; `split` gives that of a take."""

    def write(
        split: Callable[[int], str] | None = None, labels: Callable[[str, int], str] | None = None
    ) -> Path:
        lines = ["path,label" + (",split" if split else "")]
        for label in PITCHES:
            for take in range(8):
                said = labels(label, take) if labels else label
                lines.append(f"{tones}/{label}/{take}.wav,{said}" + (f",{split(take)}" if split else ""))
        path = tmp_path / "tones.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@functools.cache
def fitted_once(encoder: Path, tones: Path) -> Fitted:
    """The classifier of the folder."""
    return fit_classifier(encoder, task_of_list(tones))


def test_a_folder_per_class_becomes_a_classifier_that_is_kept(
    encoder: Path, tones: Path, tmp_path: Path
) -> None:
    task, fitted = task_of_list(tones), fitted_once(encoder, tones)
    assert fitted.summary.startswith(
        "tones: accuracy 100.0 ± 0.0 % on 24 clips in 5 folds, each by a classifier of the"
    )
    assert "without the encoder, log-mel statistics alone reach 100.0 %, and so few" in fitted.summary
    fitted.save(tmp_path / "kept")
    classifier = m2dx.load_classifier(tmp_path / "kept")
    assert classifier.label_names == ("high", "low", "mid") and not classifier.multi_label
    network, found = m2dx.load_encoder(encoder), task.features(m2dx.load_encoder(encoder))
    wavs = torch.cat(list(task.batches(network, 32)))
    layer = Logistic().fit(task, found, np.arange(24))
    expected = layer(found.pooled(layer.layer))
    assert classifier.network.layer == layer.layer
    torch.testing.assert_close(classifier(wavs), expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(m2dx.load_encoder(tmp_path / "kept").clip(wavs), network.clip(wavs))


def test_log_mel_statistics_have_a_classifier_as_an_encoder_has(tones: Path, tmp_path: Path) -> None:
    task = replace(task_of_list(tones), unit_seconds=0.37)  # no whole number of frames
    fitted = fit_classifier(STATISTICS, task)
    plain = MeanLogMel(AudioSection()).eval()
    wavs = torch.cat(list(task.batches(plain, 32)))
    frames = plain.logmel(wavs)[:, 0, :, :-1]  # encoders leave out the frame of which half is behind the end
    x = torch.cat([frames.mean(-1), frames.std(-1, correction=0)], dim=1)
    layer = Logistic().fit(task, Features(x, task.features(plain).y), np.arange(24))
    fitted.save(tmp_path / "kept")
    said = m2dx.load_classifier(tmp_path / "kept")(wavs)
    torch.testing.assert_close(said, layer(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("own", "plain", "ci95", "told"),
    [
        (0.9, 0.8, 0.05, "90.0 ± 5.0 % .* reach 80.0 %, so the encoder gains 10.0 points"),
        (
            0.8,
            0.9,
            0.05,
            "80.0 ± 5.0 % .* reach 90.0 %, so the encoder loses 10.0 points; .* log-mel` classifies without it",
        ),
        (0.9, 0.88, 0.05, "and so few clips cannot tell the two apart"),
        (0.9, 0.88, None, "90.0 % .* so the encoder gains 2.0 points"),
    ],
)
def test_the_summary_says_what_the_encoder_is_worth(
    tones: Path, own: float, plain: float, ci95: float | None, told: str
) -> None:
    scores = (m2dx.Score("tones", "accuracy", mean, ci95, (mean,), "logistic") for mean in (own, plain))
    assert re.search(f"{told}$", _summary(task_of_list(tones), *scores, tested=24))


@pytest.mark.parametrize("settings", [{}, {"class_weights": "balanced"}])
def test_the_last_fit_has_all_that_the_test_has_chosen(
    settings: dict[str, Any], encoder: Path, listed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of_list(listed(split=lambda take: "test" if take > 5 else "train"))
    (score,) = Logistic(**settings).evaluate(m2dx.load_encoder(encoder), task, seeds=(0,))
    fitted, fit = list[Logistic](), Logistic.fit
    monkeypatch.setattr(Logistic, "fit", lambda own, *given: fitted.append(own) or fit(own, *given))
    fit_classifier(encoder, task, settings=settings)
    c, layer, whiten = (score.details[of][0] for of in ("c", "layer", "whiten"))  # type: ignore[index]
    assert None not in (c, layer, whiten)
    assert fitted[-1] == Logistic(c=c, layers=(layer,), whiten=whiten, **settings)


def test_nothing_is_random(encoder: Path, tones: Path, tmp_path: Path) -> None:
    fitted_once(encoder, tones).save(tmp_path / "a")
    fit_classifier(encoder, task_of_list(tones)).save(tmp_path / "b")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_test_clips_do_not_change_the_classifier(encoder: Path, listed: Callable[..., Path]) -> None:
    split = lambda take: "train" if take < 5 else "valid" if take < 6 else "test"  # noqa: E731
    honest = fit_classifier(encoder, task_of_list(listed(split)))
    assert "accuracy 100.0 ± 0.0 % on 6 test clips, which it is not fitted to" in honest.summary
    wrong = lambda label, take: "low" if take >= 6 else label  # noqa: E731
    other = fit_classifier(encoder, task_of_list(listed(split, wrong)))
    assert "accuracy 33.3 ± 33.3 % on 6 test clips" in other.summary
    states = [fitted.classifier.network.head.state_dict() for fitted in (honest, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert honest.config.classifier.model_extra["clips"] == 18


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        (None, 5),  # no column
        (lambda take: "train", 5),  # nothing to test on
        (lambda take: "train" if take < 6 else "valid", 5),
        (lambda take: "test" if take > 5 else "train", 1),
        (lambda take: str(take % 3), 3),
    ],
)
def test_lists_are_divided_where_they_are_not(listed: Callable[..., Path], split: object, parts: int) -> None:
    assert len(task_of_list(listed(split)).folds) == parts


def test_clips_without_labels_are_left_out(listed: Callable[..., Path]) -> None:
    task = task_of_list(listed(None, lambda label, take: label if take < 4 else ""))
    assert len(task.clips) == 12 and task.label_names == ("high", "low", "mid")


def test_few_groups_make_fewer_folds() -> None:
    clips = [m2dx.Clip(Path(f"{n}.wav"), labels=("ab"[n % 2],), group=str(n // 4)) for n in range(12)]
    assert {clip.split for clip in LabelledClips("x", clips).clips()} == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("MR/p1/a.wav", "N/p3/b.wav"), [("MR", "p1", None), ("N", "p3", None)]),
        (
            ("train/a/1.wav", "test/b/2.wav"),
            [("b", None, "test"), ("a", None, "train")],
        ),  # in order of the paths
        (("MR/p1/a.wav", "N/p1/b.wav"), [("MR", "p1", None), ("N", "p1", None)]),  # a patient of both classes
        (("a/1.wav", "b/2.wav"), [("a", None, None), ("b", None, None)]),
        (("a/1.wav", "2.wav"), "2.wav must be in a folder"),
    ],
)
def test_the_folder_below_the_root_is_the_class(
    files: tuple[str, ...], expected: list[tuple[str, str | None, str | None]] | str, tmp_path: Path
) -> None:
    clips = [m2dx.Clip(path) for path in sorted(tmp_path / file for file in files)]
    if isinstance(expected, str):
        with pytest.raises(m2dx.AudioError, match=expected):
            of_folders(tmp_path, clips)
    else:
        assert [(clip.labels[0], clip.group, clip.split) for clip in of_folders(tmp_path, clips)] == expected


def test_one_recording_cannot_be_tested_and_files_that_nobody_reads_are_told(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = [m2dx.Clip(Path("long.wav"), float(n), 1.0, labels=("ab"[n % 2],)) for n in range(12)]
    with pytest.raises(m2dx.RecipeError, match=r"all labelled clips are of 1 group \(or files\)"):
        LabelledClips("x", clips)
    shutil.copytree(tones, tmp_path / "tones")
    (tmp_path / "tones" / "other").mkdir()
    (tmp_path / "tones" / "other" / "1.m4a").touch()
    task_of_list(tmp_path / "tones")
    assert "1 .m4a files in" in caplog.text


def test_too_many_bad_files_are_told_once_with_what_can_be_done(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tones, tmp_path / "tones")
    bad = sorted((tmp_path / "tones").rglob("*.wav"))[:4]
    for path in bad:
        path.write_bytes(b"no audio")
    with pytest.raises(m2dx.M2dxError, match=f"^labelled clips {tmp_path / 'tones'}: at most 5%") as error:
        task_of_list(tmp_path / "tones")
    told = f"{error.value}\n{caplog.text}"
    assert [told.count(str(path)) for path in bad] == [1] * 4
    assert "allow more" not in told and "evaluation task" not in told


@pytest.mark.parametrize(
    ("seconds", "whole", "ends"),
    [
        (0.005, False, [0.005]),  # shorter than a frame
        (0.2501, True, [0.25]),  # what is left after the first row is
        (0.6, True, [0.25, 0.5, 0.6]),
    ],
)
def test_short_files_and_short_rests_are_classified(
    seconds: float, whole: bool, ends: list[float], encoder: Path, tones: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(round(seconds * RATE), 0.1), RATE)
    bad: list[tuple[Path, str]] = []
    clips = [m2dx.Clip(tmp_path / "a.wav")]
    classifier = fitted_once(encoder, tones).classifier
    assert classifier.unit_seconds == 0.25
    _, *rows = classify_clips(classifier, clips, whole=whole, bad=bad, progress=lambda *_: None)
    assert not bad and [float(str(row[2])) for row in rows] == pytest.approx(ends, abs=1e-3)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("a.wav", r"must be a file \(.csv\)"),
        ("list.csv", "must be another file"),
        ("folder.csv", "is a folder"),
    ],
)
def test_an_output_takes_the_place_of_nothing_that_is_read(
    output: str, text: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    Path("list.csv").write_text(f"path\n{tones / 'mid' / '0.wav'}\n")
    with pytest.raises(m2dx.M2dxError, match=text):
        invoke("--train", tones, "log-mel", "list.csv", "-o", output)
    assert Path("list.csv").read_text().startswith("path")


@pytest.fixture
def run(encoder: Path, listed: Callable[..., Path]) -> Callable[[str], Path]:
    """Writes the recipe of the encoder's run."""
    path = listed(lambda take: "train" if take < 6 else "test")

    def write(evaluation: str) -> Path:
        text = "data: {sets: {tones: {dataset: {name: csv, path: PATH}}}}\naudio: {crop_seconds: 0.32}\n"
        recipe = (text + evaluation).replace("PATH", str(path))
        (encoder.parent / "recipe.yaml").write_text(f"output: {encoder.parents[1]}\n{recipe}")
        return encoder

    return write


TASK = "{dataset: {name: csv, path: PATH}, unit_seconds: 0.2}"


@pytest.mark.parametrize(
    ("evaluation", "name", "unit_seconds"),
    [
        ("", None, 0.25),
        ("", "tones", 0.25),
        (f"evaluation: {{tasks: {{pitch: {TASK}}}}}", None, 0.2),
        (f"evaluation: {{tasks: {{other: {TASK}, pitch: {TASK}}}}}", "pitch", 0.2),
    ],
)
def test_a_run_knows_its_labelled_clips(
    run: Callable[[str], Path], evaluation: str, name: str | None, unit_seconds: float
) -> None:
    task = task_of_run(run(evaluation), name, m2dx.PluginHost.discover())
    assert task.name == (name or ("pitch" if evaluation else "tones"))
    assert task.unit_seconds == pytest.approx(unit_seconds) and len(task.folds[0].test) == 6
    assert task.cache is not None


@pytest.mark.parametrize(
    ("evaluation", "name", "text"),
    [
        ("", "drums", r"there must be labelled clips 'drums' \(--task\), but there are: tones$"),
        (
            f"evaluation: {{tasks: {{a: {TASK}, b: {TASK}}}}}",
            None,
            "must be one set of labelled clips, .*: a, b$",
        ),
        (
            f"evaluation: {{tasks: {{pitch: {TASK[:-1]}, target: value}}}}}}",
            None,
            r"the labels of 'pitch' must be classes, but its `target` is value; .* --train LABELS\.csv$",
        ),
    ],
)
def test_a_set_that_is_not_clear_is_asked_for(
    run: Callable[[str], Path], evaluation: str, name: str | None, text: str
) -> None:
    with pytest.raises(m2dx.RecipeError, match=text):
        task_of_run(run(evaluation), name, m2dx.PluginHost.discover())


def test_an_encoder_without_a_recipe_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(m2dx.RecipeError, match=r"is neither; give labelled clips: --train LABELS\.csv$"):
        task_of_run(tmp_path, None, m2dx.PluginHost.discover())
    with pytest.raises(m2dx.RecipeError, match=r"^starter must be a classifier's folder"):
        task_of_run(find_encoder("starter"), None, m2dx.PluginHost.discover())


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        ("nowhere", {}, "nowhere must be a run, .* no such file or folder"),
        ("kept", {}, "must be audio files to classify"),
        (
            "kept",
            {"files": [Path("a.wav")], "task": "x"},
            "kept is a classifier already; leave --task and --save out",
        ),
        ("kept", {"files": [Path("a.wav")], "save": Path("x")}, "kept is a classifier already"),
        ("encoder", {"train": Path("x.csv"), "task": "x"}, "--task names .* leave one of them out"),
        ("encoder", {"save": Path("kept")}, "--save must be a new folder, but .*kept has config.json"),
        ("encoder", {"save": Path("run")}, "--save must be a new folder, but .*run has recipe.yaml"),
        ("encoder", {"save": Path("file")}, "--save must be a new folder, but .*file is a file"),
        ("encoder", {}, True),
        ("encoder", {"train": Path("x.csv"), "save": Path("new")}, True),
        ("kept", {"train": Path("x.csv")}, True),
        ("kept", {"files": [Path("a.wav")]}, False),
    ],
)
def test_arguments_go_together_or_are_refused(
    encoder: Path,
    tones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    options: dict[str, Path],
    text: str | bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    fast = fitted_once(encoder, tones)
    fast.save(tmp_path / "kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    (tmp_path / "file").touch()
    (tmp_path / "encoder").symlink_to(encoder)
    given = {"train": None, "task": None, "save": None, "files": [], **options}
    if isinstance(text, bool):
        assert check_request(Path(model), **given) is text
    else:
        with pytest.raises(m2dx.RecipeError, match=text):
            check_request(Path(model), **given)


def invoke(*arguments: object) -> tuple[str, str]:
    """What the command prints on stdout and stderr; its errors are raised."""
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_the_command_fits_saves_and_labels(encoder: Path, tones: Path, tmp_path: Path) -> None:
    kept, table = tmp_path / "kept", tmp_path / "labels.csv"
    fit = ("--train", tones, encoder, "--device", "cpu")
    out, told = invoke(*fit, "--save", kept)
    assert out == "" and told.startswith("tones: accuracy 100.0") and told.endswith(f"classifier: {kept}\n")
    invoke(*fit, tones / "low", "-o", table)
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 8 and {row["label"] for row in rows} == {"low"}
    assert sum(float(rows[0][label]) for label in PITCHES) == pytest.approx(1, abs=1e-3)
    again, _ = invoke(kept, tones / "low", "--device", "cpu")
    assert again == table.read_text()


def test_the_command_needs_no_encoder(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out, told = invoke("--train", tones, "log-mel", tones / "mid" / "0.wav", "--save", "kept")
    assert ",mid," in out and "each by a classifier of the others\n" in told and "without" not in told
    assert invoke("kept", tones / "mid" / "0.wav")[0] == out
    with pytest.raises(m2dx.RecipeError, match="know no labelled clips; name them by --train"):
        invoke("log-mel", tones / "mid" / "0.wav")
    with pytest.raises(m2dx.RecipeError, match=r"log-mel must be a run, an encoder or a classifier"):
        invoke("--train", tones, "./log-mel")


def test_the_command_takes_the_labels_of_a_run(run: Callable[[str], Path], tones: Path) -> None:
    out, told = invoke(
        run(f"evaluation: {{tasks: {{pitch: {TASK}}}}}"), tones / "mid" / "0.wav", "--device", "cpu"
    )
    assert told.startswith("pitch: accuracy 100.0 ± 0.0 % on 6 test clips") and ",mid," in out


def test_an_encoder_that_has_learnt_the_test_clips_is_told_and_its_licences_go_along(
    run: Callable[[str], Path], tones: Path, tmp_path: Path
) -> None:
    labels = (
        "tasks: {known: {offline_encoder: {name: labels, dataset: tones}, online_mapper: linear, loss: mse}}"
    )
    export = run(f"{labels}\nevaluation: {{tasks: {{pitch: {TASK}}}}}")
    (export / "licences").mkdir()
    (export / "licences" / "tones.txt").write_text("free")
    config, kept = json.loads((export / "config.json").read_text()), tmp_path / "kept"
    recipe = recipe_to_mapping(
        m2dx.load_recipe(export.parent / "recipe.yaml", host=m2dx.PluginHost.discover())
    )
    assert "are trained on" not in invoke(export, tones / "mid" / "0.wav")[1]  # another recipe's weights
    said = {key: recipe[key] for key in ("name", "model", "tasks")}
    (export / "config.json").write_text(json.dumps(config | {"recipe": said}))
    _, told = invoke(export, "--save", kept)
    assert ". But 6 of 6 test clips are trained on with labels" in told
    assert (kept / "licences" / "tones.txt").read_text() == "free"


def test_a_folder_that_cannot_be_written_is_told_first(encoder: Path, tones: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        m2dx.RecipeError, match=r"--save must be a folder that can be written, but .*/kept cannot"
    ):
        invoke("--train", tones, encoder, "--save", tmp_path / "file" / "kept")


def test_files_are_looked_at_before_anything_is_fitted(encoder: Path, tones: Path, tmp_path: Path) -> None:
    with pytest.raises(m2dx.AudioError, match="no audio files"):
        invoke("--train", tones, encoder, tmp_path)
    assert not list(tmp_path.iterdir())
