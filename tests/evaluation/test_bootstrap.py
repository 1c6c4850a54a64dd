"""Metrics beside scikit-learn's, and their intervals: by hand, by group, and of differences."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from m2dx.contract.components import Clip, Prediction, Score
from m2dx.evaluation.bootstrap import Bootstrap, difference, with_metrics
from m2dx.evaluation.metrics import mean_average_precision

NAMES = tuple("abcdefghijkl")


def score(predictions, *, ci95=None, metric="accuracy", values=(0.5,), **details):
    return Score("t", metric, 0.5, ci95, values, "knn", details=details, predictions=tuple(predictions))


def drawn(n, classes, *, labels=1, groups=None, digits=None, seed=0):
    """Truth (n, C), probabilities (n, C), and predictions; `digits` makes ties."""
    random = np.random.default_rng(seed)
    hot = np.zeros((n, classes), dtype=int)
    for row in range(n):
        count = labels if labels == 1 else random.integers(1, labels + 1)
        hot[row, random.choice(classes, count, replace=False)] = 1
    raw = random.normal(size=(n, classes)) + 1.5 * hot
    p = 1 / (1 + np.exp(-raw)) if labels > 1 else np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    p = (p if digits is None else p.round(digits)).astype(np.float32)
    clips = [
        Clip(
            Path(f"{row}.wav"),
            labels=tuple(NAMES[c] for c in np.flatnonzero(hot[row])),
            group=None if groups is None else str(row % groups),
        )
        for row in range(n)
    ]
    said = p.argmax(1)
    return (
        hot,
        p,
        [
            Prediction(clip, NAMES[k], float(row[k]), tuple(map(float, row)))
            for clip, k, row in zip(clips, said, p, strict=True)
        ],
    )


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize(("n", "classes"), [(200, 2), (300, 5), (400, 12), (2500, 2)])
def test_values_are_those_of_scikit_learn(n, classes, digits):
    hot, p, predictions = drawn(n, classes, digits=digits)
    y, said = hot.argmax(1), p.argmax(1)
    found = with_metrics(score(predictions), NAMES[:classes]).details
    values = {name: entry["value"] for name, entry in found["metrics"].items()}
    areas = [roc_auc_score(hot[:, k], p[:, k]) for k in range(classes)]
    expected = {
        "accuracy": np.mean(y == said),
        "balanced_accuracy": balanced_accuracy_score(y, said),
        "macro_f1": f1_score(y, said, average="macro"),
        "auroc": np.mean(areas),
    }
    if classes > 2 and digits is None:
        assert expected["auroc"] == pytest.approx(
            roc_auc_score(y, p / p.sum(1, keepdims=True), multi_class="ovr")
        )
    assert values.pop("ece") >= 0 and values == pytest.approx(expected, abs=1e-5)
    columns = precision_recall_fscore_support(y, said, zero_division=0)
    for k, name in enumerate(NAMES[:classes]):
        row = found["per_class"][name]
        ours = [row[metric]["value"] for metric in ("precision", "recall", "f1")]
        assert ours == pytest.approx([column[k] for column in columns[:3]], abs=1e-5)
        assert row["clips"] == columns[3][k]


@pytest.mark.parametrize("digits", [None, 1])
def test_of_several_labels_they_are_as_well(digits):
    hot, p, predictions = drawn(300, 6, labels=3, digits=digits)
    found = with_metrics(score(predictions, metric="mAP"), NAMES[:6])
    values = {name: entry["value"] for name, entry in found.details["metrics"].items()}
    assert values == pytest.approx(
        {
            "mAP": average_precision_score(hot, p, average="macro"),
            "auroc": roc_auc_score(hot, p, average="macro"),
            "macro_f1": f1_score(hot, p >= 0.5, average="macro"),
        },
        abs=1e-5,
    )
    entry = found.details["metrics"]["mAP"]
    assert found.ci95 == pytest.approx((entry["high"] - entry["low"]) / 2, abs=1e-5)


def test_a_class_of_all_test_clips_counts_in_map_as_in_the_score():
    rows = [(("a", "b"), 0.6, 0.2), (("a",), 0.3, 0.4), (("a", "b"), 0.8, 0.7)]
    predictions = [
        Prediction(Clip(Path(f"{row}.wav"), labels=labels), "a", p, (p, q, 0.1))
        for row, (labels, p, q) in enumerate(rows)
    ]
    found = with_metrics(score(predictions, metric="mAP"), ("a", "b", "c")).details["metrics"]
    hot, p = np.array([[1, 1], [1, 0], [1, 1]]), np.array([row[1:] for row in rows])
    assert found["mAP"]["value"] == pytest.approx(mean_average_precision(p, hot), abs=1e-6)
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(hot[:, 1], p[:, 1]), abs=1e-6)


def test_the_metric_tells_that_clips_may_have_several_labels():
    hot, _, predictions = drawn(60, 4, labels=3)
    one = [(item, row) for item, row in zip(predictions, hot, strict=True) if row.sum() == 1]
    found = with_metrics(score([item for item, _ in one], metric="mAP"), NAMES[:4])
    assert found.ci95 is not None and {"mAP", "auroc", "macro_f1"} == set(found.details["metrics"])


def said(label, *p, truth="a", group=None, number=0):
    return Prediction(
        Clip(Path(f"{number}.wav"), labels=(truth,), group=group), label, max(p, default=1.0), p or None
    )


def test_the_calibration_error_by_hand():
    # bins (0.6, 0.667] and (0.867, 0.933]: 1 of 2 right at 0.65, 1 of 1 at 0.9
    predictions = [said("a", 0.65, 0.35), said("b", 0.35, 0.65, number=1), said("a", 0.9, 0.1, number=2)]
    found = with_metrics(score(predictions), ("a", "b")).details["metrics"]
    assert found["ece"]["value"] == pytest.approx((2 * abs(0.65 - 0.5) + abs(0.9 - 1)) / 3, abs=1e-6)
    assert "auroc" not in found  # there is one class


def test_metrics_of_folds_are_their_means_as_the_score_is():
    # fold 1: 1 of 1 right; fold 2: 1 of 3; per class: a 2 of 2, b 0 of 2
    rows = [("1", "a", "a"), ("2", "a", "a"), ("2", "b", "a"), ("2", "b", "a")]
    predictions = [
        replace(found, clip=replace(found.clip, split=split))
        for split, found in (
            (split, said(label, truth=truth, number=i)) for i, (split, truth, label) in enumerate(rows)
        )
    ]
    found = with_metrics(score(predictions, values=(1.0, 1 / 3), classifiers=1), ("a", "b")).details
    values = {name: entry["value"] for name, entry in found["metrics"].items()}
    # fold 2: recall 1 and 0; F1 of a is 2 * 1 / (3 + 1), of b 0
    expected = {
        "accuracy": (1 + 1 / 3) / 2,
        "balanced_accuracy": (1 + 1 / 2) / 2,
        "macro_f1": (1 + 1 / 4) / 2,
    }
    assert values == pytest.approx(expected, abs=1e-6)
    assert found["per_class"]["b"]["recall"]["value"] == 0 and found["per_class"]["a"]["clips"] == 2
    assert found["metrics_of"] == "the first classifier, means over the folds"


@pytest.mark.parametrize(
    ("right", "groups", "low", "high"),
    [
        ([i % 2 == 0 for i in range(100)], None, 0.08, 0.11),  # 1.96 * sqrt(0.25 / 100) = 0.098
        ([i < 50 for i in range(100)], [str(i // 10) for i in range(100)], 0.25, 0.35),
        ([i % 2 == 0 for i in range(100)], [str(i // 50) for i in range(100)], 0.08, 0.11),  # groups alike
        ([i % 2 == 0 for i in range(100)], ["g" if i < 10 else None for i in range(100)], 0.08, 0.11),
        ([True] * 20, None, 0.0, 0.0),
    ],
)
def test_a_single_value_gets_the_wider_interval_of_clips_and_groups(right, groups, low, high):
    groups = groups or [None] * len(right)
    predictions = [
        said("a" if ok else "b", group=group, number=i)
        for i, (ok, group) in enumerate(zip(right, groups, strict=True))
    ]
    found = with_metrics(score(predictions), ("a", "b"))
    assert low <= found.ci95 <= high and found.details["metrics"].keys() == {
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
    }
    assert with_metrics(score(predictions, ci95=0.1), ("a", "b")).ci95 == 0.1
    assert with_metrics(found, ("a", "b")) is found
    json.dumps(found.details, allow_nan=False)


def test_segments_of_a_file_are_a_group():
    predictions = [said("a" if i < 50 else "b", number=i // 10) for i in range(100)]
    assert 0.25 < with_metrics(score(predictions), ("a", "b")).ci95 < 0.35


def test_without_predictions_nothing_is_added():
    given = score(())
    assert with_metrics(given, ("a",)) is given
    several = score(
        [said("a", truth="a"), replace(said("b"), clip=Clip(Path("x"), labels=("a", "b")))], metric="mAP"
    )
    assert with_metrics(several, ("a", "b")) is several


def test_the_difference_is_of_the_same_clips():
    rights = np.random.default_rng(1).random((2, 200)) < [[0.8], [0.7]]
    own, rival = (
        score([said("a" if ok else "b", number=i) for i, ok in enumerate(row)], classifiers=1)
        for row in rights
    )
    found = difference(own, rival)
    gains = rights[0].astype(float) - rights[1]
    half = 1.96 * gains.std() / 200**0.5
    assert found["value"] == pytest.approx(gains.mean(), abs=1e-6)
    assert found["low"] == pytest.approx(gains.mean() - half, abs=0.015)
    assert found["high"] == pytest.approx(gains.mean() + half, abs=0.015)
    assert difference(own, own) == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert difference(rival, own)["low"] == pytest.approx(-found["high"], abs=1e-6)


@pytest.mark.parametrize(
    "rival",
    [
        score(()),
        score([said("a")]),  # other clips
        score([said("a"), said("b", number=1)], classifiers=3),
        score([said("a"), said("b", number=1)], values=(0.5, 0.4)),  # a plugin's, over seeds
        score([said("a"), said("b", number=1)], metric="icbhi"),
    ],
)
def test_there_is_no_difference_where_predictions_say_nothing(rival):
    own = score([said("a"), said("b", number=1)], metric=rival.metric)
    assert difference(own, rival) is None


def test_one_test_clip_says_nothing_of_chance():
    own, rival = score([said("a")]), score([said("b")])
    assert with_metrics(own, ("a", "b")).ci95 is None and difference(own, rival) is None


def test_the_metrics_of_a_set_as_large_as_esc_50_take_about_a_second():
    predictions = drawn(2000, 12, groups=400)[2]
    started = time.process_time()
    with_metrics(score(predictions), NAMES)
    assert time.process_time() - started < 10  # about 1 s on two free cores


def test_draws_are_always_the_same():
    clips = [Clip(Path(f"{i}.wav"), group=str(i // 2)) for i in range(6)]
    first, again = Bootstrap.of(clips), Bootstrap.of(clips)
    assert len(first.weights) == 2 and all(map(np.array_equal, first.weights, again.weights))
    assert all((weights.sum(1) == 6).all() for weights in first.weights)
    assert (first.weights[1][:, ::2] == first.weights[1][:, 1::2]).all()
