"""Ridge regression against scikit-learn, on made-up values and on the pitch of real notes."""

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics
import torch
from m2dx_probes.ridge import (
    ALPHAS,
    Ridge,
    RidgeFit,
    _inner_parts,
    _interval,
    _Tested,
    d2_absolute_error,
    mean_absolute_error,
    pearson,
    r2,
)
from scipy import stats

import m2dx
from m2dx import Clip
from m2dx.contract.components import Features, OverTime
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation.features import MeanLogMel
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.results.scoring import Scoring
from m2dx.testing import check_evaluator

SOUNDS = Path(__file__).parents[3] / "examples" / "sounds"


@pytest.fixture(scope="module")
def pitch_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the quickstart's notes, with the MIDI number of each, which its file's name has, as the label."""
    rows = list(csv.DictReader((SOUNDS / "instrument.csv").read_text(encoding="utf-8").splitlines()))[::3]
    path = tmp_path_factory.mktemp("pitch") / "pitch.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for row in rows:
            note = re.search(r"_\d+_(\d+)_v\d+", row["path"])
            assert note is not None
            writer.writerow({**row, "path": SOUNDS / row["path"], "label": int(note[1])})
    return path


@pytest.fixture(scope="module")
def pitch(pitch_list: Path) -> ClipTask:
    return ClipTask.from_dataset("pitch", CsvDataset(path=pitch_list), unit_seconds=0.5, target="value")


def made_up(n: int, width: int, noise: float = 1.0) -> tuple[Features, list[Clip]]:
    """Features of different scales, values that follow from them and noise, and clips of three to a group."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=random)
    y = x @ torch.randn(width, generator=random) + noise * torch.randn(n, generator=random) + 40
    clips = [Clip(Path(f"{row}.wav"), group=str(row // 3)) for row in range(n)]
    return Features(50 + x * torch.logspace(-2, 2, width), y), clips


def test_a_task_of_values_has_them_as_targets(pitch: ClipTask) -> None:
    assert pitch.label_names == () and pitch.metric == "r2" and not pitch.multi_label
    values = [float(clip.labels[0]) for clip in pitch.clips]
    assert pitch.targets().shape == (len(values), 1) and pitch.targets()[:, 0].tolist() == values


def test_values_keep_their_digits(pitch: ClipTask) -> None:
    """Of Unix times, float32 keeps two minutes."""
    later = [replace(clip, labels=(str(1_700_000_000 + float(clip.labels[0])),)) for clip in pitch.clips]
    shifted = replace(pitch, clips=tuple(later))
    assert (shifted.targets() - 1_700_000_000).tolist() == pitch.targets().tolist()
    baseline = MeanLogMel(AudioSection())
    (score, *_), (expected, *_) = (
        Ridge(layers="last").evaluate(baseline, task, seeds=(0,)) for task in (shifted, pitch)
    )
    assert score.mean == pytest.approx(expected.mean, abs=1e-6) and score.mean > 0.1


def test_the_evaluator_keeps_the_contract(pitch: ClipTask) -> None:
    check_evaluator(Ridge, pitch, layers="last")


def test_the_pitch_of_real_notes_is_predicted(pitch: ClipTask) -> None:
    encoder = random_encoder(
        AudioSection(crop_seconds=0.96), ModelSection(size="tiny", depth=2), mean=-7.0, std=4.0, seed=0
    )
    scores = {score.metric: score for score in Ridge().evaluate(encoder, pitch, seeds=(0,))}
    assert set(scores) == {"r2", "d2_absolute_error", "pearson"}
    assert scores["r2"].mean > 0.5 and scores["pearson"].mean > 0.7
    assert all(score.ci95 is not None and 0 < score.ci95 < 0.5 for score in scores.values())
    test = pitch.targets()[pitch.folds[0].test, 0]
    mae: Any = scores["r2"].details["mae"]
    assert mae["mean"] < np.abs(test - np.median(test)).mean() and 0 < mae["ci95"] < mae["mean"]
    assert scores["d2_absolute_error"].mean == pytest.approx(
        1 - mae["mean"] / np.abs(test - np.median(test)).mean()
    )


# Peer checks


@pytest.mark.parametrize(("n", "width"), [(90, 5), (40, 90)])
@pytest.mark.parametrize("alpha", [0.1, 30.0, 1e5])
def test_the_regression_is_that_of_scikit_learn(n: int, width: int, alpha: float) -> None:
    found, clips = made_up(n, width)
    fit = Ridge(alpha=alpha).fit(found, np.arange(n), clips)
    x = found.x.double().numpy()
    standard = (x - x.mean(0)) / x.std(0)
    peer = sklearn.linear_model.Ridge(alpha=alpha).fit(standard, found.y.double().numpy())
    np.testing.assert_allclose(fit(found.x), peer.predict(standard), rtol=1e-6)


def test_measures_are_those_of_scikit_learn_and_scipy() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=50)
    predicted = y + random.normal(size=50)
    assert r2(y, predicted) == pytest.approx(sklearn.metrics.r2_score(y, predicted))
    assert mean_absolute_error(y, predicted) == pytest.approx(
        sklearn.metrics.mean_absolute_error(y, predicted)
    )
    assert d2_absolute_error(y, predicted) == pytest.approx(
        sklearn.metrics.d2_absolute_error_score(y, predicted)
    )
    assert pearson(y, predicted) == pytest.approx(stats.pearsonr(y, predicted).statistic)


def test_the_penalty_is_that_with_the_lowest_error_of_inner_folds_as_in_scikit_learn() -> None:
    found, clips = made_up(120, 60, noise=6.0)
    fit = Ridge().fit(found, np.arange(120), clips)
    parts, x, y = _inner_parts(clips), found.x.double().numpy(), found.y.double().numpy()
    errors = []
    for alpha in ALPHAS:
        error = 0.0
        for part in range(3):
            kept = parts != part
            mean, std = x[kept].mean(0), x[kept].std(0)
            peer = sklearn.linear_model.Ridge(alpha=alpha).fit((x[kept] - mean) / std, y[kept])
            error += float(np.square(peer.predict((x[~kept] - mean) / std) - y[~kept]).sum())
        errors.append(error)
    assert fit.alpha == ALPHAS[int(np.argmin(errors))] and ALPHAS[0] < fit.alpha < ALPHAS[-1]


# Groups


def test_inner_folds_do_not_divide_groups() -> None:
    _, clips = made_up(90, 3)
    parts = _inner_parts(clips)
    for first in range(0, 90, 3):
        assert len(set(parts[first : first + 3])) == 1
    assert np.bincount(parts).tolist() == [30, 30, 30]


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_a_single_group_has_a_penalty_of_the_middle_and_the_last_layer(alpha: float | None) -> None:
    found, clips = made_up(20, 4)
    one = [replace(clip, group="one") for clip in clips]
    layers = {number: OverTime(found.x, found.x, found.x) for number in (0, 2, 5)}
    for last, of_layers in ((None, found), (5, replace(found, layers=layers))):
        fit = Ridge(alpha=alpha).fit(of_layers, np.arange(20), one)
        assert fit.alpha == (alpha or ALPHAS[len(ALPHAS) // 2]) and fit.layer == last


def test_the_layer_with_the_lowest_error_is_chosen() -> None:
    found, clips = made_up(90, 6, noise=0.1)
    noise = torch.randn(90, 6, generator=torch.Generator().manual_seed(1))
    layers = {k: OverTime(found.x if k == 3 else noise, noise, noise) for k in (0, 3, 5)}
    fits: list[RidgeFit] = [
        Ridge(layers=layers_).fit(Features(noise, found.y, layers), np.arange(90), clips)
        for layers_ in ("best", "last")
    ]
    assert [fit.layer for fit in fits] == [3, 5]


def test_intervals_draw_groups() -> None:
    """Errors that are equal within groups: the interval is that of the mean of so many groups, not of the clips."""
    random = np.random.default_rng(1)
    of_group = random.normal(size=40)
    clips = [Clip(Path(f"{row}.wav"), group=str(row // 25)) for row in range(1000)]
    grouped = _interval([_Tested(np.zeros(1000), np.repeat(of_group, 25), clips)], mean_absolute_error)
    expected = 1.96 * np.abs(of_group).std(ddof=1) / np.sqrt(40)
    assert grouped == pytest.approx(expected, rel=0.15)
    one = [replace(clip, group="one") for clip in clips]
    alone = _interval([_Tested(np.zeros(1000), random.normal(size=1000), one)], mean_absolute_error)
    assert alone == pytest.approx(1.96 * np.sqrt(1 - 2 / np.pi) / np.sqrt(1000), rel=0.15)


@pytest.mark.parametrize("measure", [r2, d2_absolute_error, pearson])
def test_values_that_are_all_equal_score_0(measure: Callable[..., float]) -> None:
    assert measure(np.full(5, 2.0), np.arange(5.0)) == 0.0


# What is refused


TASK = "evaluation.tasks={{pitch: {{dataset: {{name: csv, path: {path}}}, target: {target}, unit_seconds: 0.5}}}}"


@pytest.mark.parametrize(
    ("target", "evaluator", "message"),
    [
        (
            "value",
            "knn",
            r"evaluation\.tasks\.pitch: `target` must be .* is value, and mine predicts a class; change it",
        ),
        ("value", "attentive", r"is value, and mine predicts a class"),
        (
            "class",
            "ridge",
            r"evaluation\.tasks\.pitch: `target` must be .* is class, and mine predicts a value; change it",
        ),
        ("value", "ridge", None),
    ],
)
def test_tasks_of_the_other_kind_are_refused_before_training(
    target: str, evaluator: str, message: str | None, pitch_list: Path, tmp_path: Path,
    make_host: Callable[[str], m2dx.PluginHost],
) -> None:  # fmt: skip
    host, recipe = make_host("probes"), tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{sets: {{notes: {{dataset: {{name: csv, path: {pitch_list}}}}}}}}}\n", encoding="utf-8"
    )
    overrides = [TASK.format(path=pitch_list, target=target), f"evaluation.evaluators={{mine: {evaluator}}}"]
    loaded = load_recipe(recipe, overrides, host=host)
    if message is None:
        assert Scoring.of(loaded, host).protocols() == {"pitch": ("mine",)}
    else:
        with pytest.raises(m2dx.RecipeError, match=message):
            Scoring.of(loaded, host)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["1.5", "old", "2"],
            r"1 clips have a label that is not one number, as `target: value` says: .*1\.wav",
        ),
        (["1.5", "3;4", "2"], r"1 clips have a label that is not one number"),
        (["1.5", "nan", "inf"], r"2 clips have a label that is not one number"),
        (["1.5", "", "2"], r"1 clips have no label"),
        (["2", "2", "2"], r"there must be two classes or more, but there are 1"),
    ],
)
def test_labels_that_are_no_values_are_refused_with_their_files(
    labels: list[str], message: str, tmp_path: Path
) -> None:
    lines = [f"{row}.wav,{label},{'test' if row == 2 else 'train'}" for row, label in enumerate(labels)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(lines), encoding="utf-8")
    with pytest.raises(m2dx.RecipeError, match=message):
        ClipTask.from_dataset("age", CsvDataset(path=tmp_path / "list.csv"), target="value")
