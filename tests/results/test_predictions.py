"""The file of predictions: what is written is read, and it is bounded."""

import json
from pathlib import Path

import pytest

from m2dx.contract.components import Clip, Prediction, Score
from m2dx.results.predictions import (
    MOST_CLIPS,
    PREDICTIONS_FILE,
    read_predictions,
    write_predictions,
)
from m2dx.results.scores import read_scores, write_scores


def prediction(number=0, *, right=True, group=None):
    clip = Clip(Path(f"/data/{number}\udcff.wav"), 0.5, 2.0, ("a;b", "ü"), group=group)
    return Prediction(clip, "ü" if right else "c", 0.75)


def score(*predictions, ci95=None, encoder="pretrained", metric="accuracy"):
    return Score("notes", metric, 0.5, ci95, (0.5,), "knn", encoder=encoder, predictions=predictions)


def test_predictions_are_written_and_read_and_stay_out_of_the_scores(tmp_path):
    scores = [score(prediction(1), prediction(2, group="g")), score(encoder="mean_logmel")]
    write_predictions(scores, tmp_path)
    found, unreadable = read_predictions(tmp_path)
    assert dict(found) == {("pretrained", "notes", "knn"): list(scores[0].predictions)} and not unreadable
    write_scores(scores, tmp_path / "scores.json")
    assert "predictions" not in json.loads((tmp_path / "scores.json").read_text())[0]
    assert [item.predictions for item in read_scores(tmp_path / "scores.json")] == [(), ()]
    write_predictions(scores[1:], tmp_path)
    assert read_predictions(tmp_path) == ({}, 0)  # no older ones are left


def test_there_are_a_bounded_number_of_lines(tmp_path):
    write_predictions([score(*map(prediction, range(2 * MOST_CLIPS)))], tmp_path)
    (found,) = read_predictions(tmp_path)[0].values()
    assert [item.clip.path.name for item in found[:3]] == ["0\udcff.wav", "2\udcff.wav", "4\udcff.wav"]
    assert len(found) == MOST_CLIPS


@pytest.mark.parametrize("line", ["", "{", "[]", '{"encoder": "pretrained"}', '"x"', "\0"])
def test_lines_that_are_no_predictions_are_counted(tmp_path, line):
    write_predictions([score(prediction())], tmp_path)
    with (tmp_path / PREDICTIONS_FILE).open("a") as file:
        file.write(f"{line}\n")
    found, unreadable = read_predictions(tmp_path)
    assert len(found) == 1 and unreadable == 1


def test_probabilities_are_kept_with_four_digits(tmp_path):
    item = Prediction(prediction().clip, "b", 2 / 3, (1 / 3, 2 / 3))
    write_predictions([score(item)], tmp_path)
    ((found,),) = read_predictions(tmp_path)[0].values()
    assert (found.probability, found.probabilities) == (0.6667, (0.3333, 0.6667))
