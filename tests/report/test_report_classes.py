"""Class by class: what is counted and drawn of predictions, and which clips can be heard."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from report_pages import entry, page_of, predictions, wavs

from m2dx.contract.components import Clip, Prediction
from m2dx.report.classes import (
    CLIPS_OF_PAGE,
    CLIPS_OF_TASK,
    MOST_CLASSES,
    MOST_IN_MATRIX,
    SAMPLE_RATE,
    class_rows,
    confusion_picture,
    most_certain,
    sound,
    tasks_by_class,
)
from m2dx.results.predictions import write_predictions
from m2dx.results.scores import write_scores


def said(truth, label, probability=0.5, path="a.wav"):
    return Prediction(Clip(path, labels=tuple(truth.split())), label, probability)


def test_classes_are_those_of_the_scores_and_those_with_the_fewest_right_come_first():
    own = [said("a", "a"), said("a", "b"), said("b", "b"), said("b", "b"), said("c", "a")]
    others = [said("a", "a"), said("b", "a"), said("a", "d"), said("b", "b")]
    scores = [entry(of, 0.5, predictions=items) for of, items in (("own", own), ("other", others))]
    rows = [
        (name, mine["clips"], mine["recall"]["value"], theirs and theirs["recall"]["value"])
        for name, mine, theirs in class_rows(*scores)
    ]
    assert rows == [("c", 1, 0.0, None), ("a", 2, 0.5, 0.5), ("b", 2, 1.0, 0.5)]
    assert class_rows(scores[0], None)[1][2] is None


def test_the_confusion_matrix_has_the_truth_in_rows_and_shares_as_shades():
    picture = confusion_picture("t", [said("a", "a"), said("a", "b"), said("a", "b"), said("b", "b")])
    axes = Figure().add_subplot()
    picture.draw(axes)
    shades = np.asarray(axes.images[0].get_array())[..., 3]
    np.testing.assert_allclose(shades, [[1 / 3, 2 / 3], [0, 1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "1"), ((1, 0), "2"), ((1, 1), "1"),
    }  # fmt: skip
    assert "2 of 4 test clips" in picture.label
    assert confusion_picture("t", []) is None
    assert confusion_picture("t", [said(f"{n}", "0") for n in range(MOST_IN_MATRIX + 1)]) is None


def test_the_most_certain_mistakes_come_first_one_of_each_pair_before_others():
    wrong = [said("a", "b", 0.9), said("a", "b", 0.8), said("a", "c", 0.3), said("b", "a", 0.6)]
    chosen = most_certain(wrong, 4)
    assert [item.probability for item in chosen] == [0.9, 0.6, 0.3, 0.8]
    assert most_certain(wrong, 2) == chosen[:2]


@pytest.mark.parametrize("tasks", [1, 10])
def test_each_task_is_told_by_the_protocol_that_does_best_and_clips_are_few(tasks):
    scores, found = [], {}
    for task in map(str, range(tasks)):
        for protocol, mean in (("knn", 0.4), ("linear", 0.6), ("finetune", 0.9)):
            items = [said("a", "b"), said("b", "b")] * 20
            told = () if protocol == "finetune" else items  # which tells no predictions
            scores += [entry("pretrained", mean, task=task, protocol=protocol, predictions=told)]
            scores += [entry("mean_logmel", mean, task=task, protocol=protocol)]
            found["pretrained", task, protocol] = told
    shown = tasks_by_class(scores, found)
    assert [(of.own.task, of.own.protocol, of.rival) for of in shown] == [
        (task, "linear", None) for task in map(str, range(tasks))
    ]
    assert dict(shown[0].metrics)["accuracy"][:5] == "50.0%" and len(shown[0].rows) == 2
    assert sum(len(of.clips) for of in shown) == min(tasks * CLIPS_OF_TASK, CLIPS_OF_PAGE // tasks * tasks)


@pytest.mark.parametrize(
    "details",
    [
        {"per_class": {"a": 0.5}},
        {"per_class": {"a": {"clips": 1}}, "metrics": {"accuracy": 0.5}},
        {"per_class": None},
    ],
)
def test_classes_in_another_evaluator_s_form_are_left_out(details):
    theirs = [replace(entry("pretrained", 0.9, protocol="theirs"), details=details)]
    assert tasks_by_class(theirs, {}) == []
    ours = entry("pretrained", 0.5, predictions=[said("a", "a"), said("b", "a")])
    (shown,) = tasks_by_class([*theirs, ours], {})
    assert shown.own is ours


def test_a_clip_is_heard_as_short_mp3_of_its_own_place(make_wav):
    path = make_wav("a.wav", seconds=5.0)
    url = sound(Clip(path, start=1.0, duration=3.0))
    data = base64.b64decode(url.removeprefix("data:audio/mpeg;base64,"))
    wav, rate = soundfile.read(io.BytesIO(data))
    assert rate == SAMPLE_RATE and wav.ndim == 1 and 1.9 < len(wav) / rate < 2.2 and len(data) < 20_000
    assert 0.4 < np.abs(wav).max() <= 1.0


@pytest.mark.parametrize("content", [None, b"", b"not audio"])
def test_a_clip_that_cannot_be_read_is_shown_without_sound(tmp_path, content, caplog):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    assert sound(Clip(path, duration=1.0)) == "" and str(path) in caplog.text


def test_the_page_shows_classes_confusion_and_clips_to_listen_to(run, sounds):
    found = predictions(wavs(sounds), of_each=10)
    scores = [
        entry(encoder, 0.9 - n / 2, predictions=items) for n, (encoder, items) in enumerate(found.items())
    ]
    write_predictions(scores, run)
    write_scores(scores, run / "scores.json")
    page = page_of(run)
    wrong = [item for item in found["pretrained"] if item.label not in item.clip.labels]
    assert len(page.all("audio")) == len(wrong) == 3
    assert all(audio["src"].startswith("data:audio/mpeg;base64,") for audio in page.all("audio"))
    (section,) = [text for text in page.sections if "By linear" in text]
    assert "90.0% (" in section and "<drum>" in section and "Mean log-mel" in section
    assert "per_class" not in page.text and "metrics_of" in page.text
    assert any("27 of 30" in svg["aria-label"] for svg in page.all("svg"))
    marks = [attrs["style"] for attrs in page.all("i") if attrs["class"] == "mark"]
    assert marks == ["left: 0.0%"] * 3
    assert len(page.html) < 700_000


def test_many_classes_are_listed_in_part(run, sounds):
    found = predictions(wavs(sounds), names=[f"class {n}" for n in range(100)], of_each=1)
    scores = [entry("pretrained", 0.9, predictions=found["pretrained"])]
    write_predictions(scores, run)
    write_scores(scores, run / "scores.json")
    page = page_of(run)
    assert f"the {MOST_CLASSES} lowest of 100 classes" in page.text
    assert len([attrs for attrs in page.all("i") if attrs["class"] == "fill"]) == MOST_CLASSES + 1
    assert len(page.all("audio")) == CLIPS_OF_TASK
