from dataclasses import replace

import pytest
import torch

from m2dx.contract.components import Features, OverTime, Prediction
from m2dx.evaluation.knn import Knn, neighbour_votes
from m2dx.evaluation.tasks import ClipTask


def test_votes_by_hand():
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    test = torch.tensor([[3.0, 4.0]])  # similarity 0.6, 0.8, -0.6
    torch.testing.assert_close(neighbour_votes(train, targets, test, k=1), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(neighbour_votes(train, targets, test, k=2), torch.tensor([[0.6, 0.8]]) / 1.4)
    capped = neighbour_votes(train, targets, test, k=50)
    torch.testing.assert_close(capped, torch.tensor([[0.6, 0.8]]) / 1.4, atol=1e-5, rtol=0)


def test_tones_are_told_apart(tone, list_dataset, spectrum_encoder):
    clips = [tone(x, split=s) for s in ("train", "train", "valid", "test") for x in ("low", "mid", "high")]
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    (score,) = Knn(k=1).evaluate(spectrum_encoder, task, seeds=(0, 1))
    assert (score.mean, score.ci95, score.values, score.protocol) == (1.0, None, (1.0,), "knn")
    assert score.details["k"] == 1


def test_mislabelled_test_clips_count_as_errors(tone, list_dataset, spectrum_encoder):
    clips = [tone(x, split=s) for s in ("train", "valid", "test") for x in ("low", "high")]
    clips[-1] = replace(clips[-1], labels=("low",))
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    (score,) = Knn(k=1).evaluate(spectrum_encoder, task, seeds=(0,))
    assert score.mean == 0.5
    assert score.predictions == (
        Prediction(task.clips[4], "low", 1.0, (0.0, 1.0)),  # in the order of the label names
        Prediction(task.clips[5], "high", 1.0, (1.0, 0.0)),
    )


def test_the_deviation_over_time_tells_what_the_mean_does_not(
    tone, list_dataset, spectrum_encoder, monkeypatch
):
    clips = [tone(x, split=s) for s in ("train", "train", "test") for x in ("low", "high")]
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    by_class, noise = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(3, 1), torch.eye(6)[:, :2]
    layers = {1: OverTime(by_class, by_class, by_class), 2: OverTime(noise, by_class, noise)}
    found = Features(noise, torch.tensor([1, 0] * 3), layers)  # high comes before low
    monkeypatch.setattr(ClipTask, "features", lambda *given, **options: found)
    means = []
    for knn in (Knn(k=1), Knn(k=1, pooling="mean"), Knn(k=1, pooling="max")):
        (score,) = knn.evaluate(spectrum_encoder, task, seeds=(0,))
        means.append(score.mean)
    assert means == [1.0, 0.5, 0.5]


def test_folds_give_an_interval(tone, list_dataset, spectrum_encoder):
    clips = [tone(x, split=s) for s in "1234" for x in ("low", "low", "high")]
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    (score,) = Knn(k=3).evaluate(spectrum_encoder, task, seeds=(0,))
    assert len(score.values) == 4 and score.ci95 is not None


def test_multi_label_is_map(tone, list_dataset, spectrum_encoder):
    sets = [("low",), ("mid",), ("low", "mid"), ("low", "high"), ("high",)]
    clips = [tone(*labels, split=s) for s in ("train", "train", "test") for labels in sets]
    task = ClipTask.from_dataset("chords", list_dataset(clips))
    (score,) = Knn(k=2).evaluate(spectrum_encoder, task, seeds=(0,))
    assert score.metric == "mAP"
    assert score.mean == pytest.approx(1.0)
    assert score.details["classes_left_out"] == [0]
