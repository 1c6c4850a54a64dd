import numpy as np
import pytest
import torch
from m2dx_probes.linear import batched_score

from m2dx.evaluation.metrics import (
    accuracy,
    half_width_95,
    mean_average_precision,
    score_of,
    summarise,
)
from m2dx.evaluation.tasks import ClipTask


def test_accuracy_by_hand():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    assert accuracy(scores, np.array([0, 1, 1, 1])) == 0.75


SCORES = np.array([[0.9, 0.1, 0.3], [0.8, 0.9, 0.2], [0.7, 0.5, 0.1], [0.1, 0.3, 0.0]])
TARGETS = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
# class 0: positives at ranks 1 and 3: (1 + 2/3) / 2; class 1: at ranks 2 and 3: (1/2 + 2/3) / 2; class 2: left out
BY_HAND = ((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 2


def test_mean_average_precision_by_hand_leaves_out_classes_without_positives():
    assert mean_average_precision(SCORES, TARGETS) == pytest.approx(BY_HAND)
    assert batched_score(torch.tensor(SCORES)[None], torch.tensor(TARGETS)).item() == pytest.approx(BY_HAND)
    with pytest.raises(ValueError, match="positives"):
        mean_average_precision(SCORES, TARGETS * 0)


def test_batched_scores_are_those_of_each_classifier():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 30, 6, generator=generator)
    multi_hot = (torch.rand(30, 6, generator=generator) < 0.3).float()
    labels = torch.randint(6, (30,), generator=generator)
    for y in (multi_hot, labels):
        np.testing.assert_allclose(batched_score(logits, y), [score_of(one, y) for one in logits], rtol=1e-5)


def test_half_width_by_hand():
    # t(0.975, 2) = 4.3027; standard deviation of 1, 2, 3 is 1
    assert half_width_95([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert half_width_95([0.5]) is None
    assert half_width_95([0.5, 0.5]) == 0.0


def test_values_are_by_seed_or_for_one_seed_by_fold(tone, list_dataset):
    clips = [tone(label, split=split) for split in "123" for label in ("low", "high")]
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    by_seed = summarise(task, [[0.1, 0.3], [0.3, 0.5], [0.2, 0.7]], protocol="linear")
    assert by_seed.values == pytest.approx((0.2, 0.5)) and by_seed.mean == pytest.approx(0.35)
    assert by_seed.ci95 == pytest.approx(12.7062 * 0.15, rel=1e-4)
    by_fold = summarise(task, [[0.1], [0.3], [0.2]], protocol="knn", details={"k": 3})
    assert by_fold.values == pytest.approx((0.1, 0.3, 0.2)) and by_fold.ci95 is not None
    assert (by_fold.task, by_fold.metric, by_fold.protocol) == ("tones", "accuracy", "knn")
    assert by_fold.details["k"] == 3 and by_fold.details["folds"] == 3
