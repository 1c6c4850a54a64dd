import json
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from m2dx_probes.linear import Linear

import m2dx
from m2dx.contract.components import Clip, Evaluator, Prediction, Score
from m2dx.contract.errors import CheckpointError, PluginError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.evaluation.knn import Knn
from m2dx.evaluation.logistic import Logistic
from m2dx.evaluation.runner import evaluate
from m2dx.evaluation.tasks import ClipTask
from m2dx.results.scores import read_scores, write_scores


class Recorder(Evaluator):
    """Scores an encoder with the number it carries, plus a hundredth of each seed."""

    name = "recorder"

    def evaluate(self, encoder, task, *, seeds):
        values = tuple(encoder.number + seed / 100 for seed in seeds)
        return [Score(task.name, "accuracy", sum(values) / len(values), 0.5, values, "recorder")]


class Numbered:
    sample_rate, embed_dim = 8000, 4

    def __init__(self, number):
        self.number = number

    def clip(self, wav):
        raise AssertionError("not used")


@pytest.fixture
def task(tone, list_dataset):
    clips = [tone(x, split=s) for s in ("train", "train", "valid", "test") for x in ("low", "mid", "high")]
    return ClipTask.from_dataset("tones", list_dataset(clips))


def test_a_fixed_encoder_is_scored_once_with_all_seeds(task):
    encoder = Numbered(0.5)
    (entry,) = evaluate({"mine": lambda seed: encoder}, [task], {"probe": Recorder()}, seeds=(1, 2))
    assert (entry.encoder, entry.protocol) == ("mine", "probe")
    assert entry.values == pytest.approx((0.51, 0.52))


def test_random_networks_are_pooled_over_seeds_and_not_kept(task):
    alive = []

    def random_weights(seed):
        encoder = Numbered(0.1 * seed)
        alive.append(weakref.ref(encoder))
        assert sum(made() is not None for made in alive) <= 2
        return encoder

    (entry,) = evaluate({"random_weights": random_weights}, [task], {"probe": Recorder()}, seeds=(1, 2, 3))
    assert entry.values == pytest.approx((0.11, 0.22, 0.33))
    assert entry.mean == pytest.approx(0.22)
    assert entry.ci95 == pytest.approx(4.3027 * 0.11 / 3**0.5, rel=1e-3)


SCORE = Score("tones", "accuracy", 0.5, None, (0.5,), "recorder")
OTHER = Prediction(Clip(Path("other.wav")), "low", 0.5)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, "evaluate must give a list of m2dx.Score objects, but gave None"),
        ([], "it gives no score of any encoder"),
        (SCORE, "evaluate must give a list of m2dx.Score objects, but gave Score"),
        ([{"mean": 0.5}], "evaluate must give a list .* but gave one with {'mean': 0.5}"),
        ([replace(SCORE, mean=np.nan)], "mean and values must be finite"),
        ([replace(SCORE, mean=torch.tensor(0.5))], "mean and values must be finite"),
        ([replace(SCORE, values=())], "mean and values must be finite, with one value or more"),
        ([replace(SCORE, values=("a",))], "mean and values must be finite"),
        ([replace(SCORE, task="other")], "a score's task must be 'tones', but is 'other'"),
        ([replace(SCORE, details={"c": np.nan})], "its details must be plain data: Out of range"),
        ([replace(SCORE, details={"c": np.float32(1)})], "its details must be plain data: .*float32"),
        ([replace(SCORE, predictions=({"label": "low"},))], "its predictions must be of the task's clips"),
        ([replace(SCORE, predictions=(OTHER,))], "its predictions must be of the task's clips"),
        (ZeroDivisionError("of the plugin"), "failed: ZeroDivisionError: of the plugin"),
        (SystemExit("of the plugin"), "failed: SystemExit: of the plugin"),
        (RecipeError("leave it out"), "leave it out"),
    ],
)
def test_an_evaluator_at_fault_is_named_and_the_others_keep_their_scores(given, reason, task):
    class Bad(Recorder):
        """Gives no scores as they must be."""

        name = "bad"

        def evaluate(self, encoder, task, *, seeds):
            if isinstance(given, BaseException):
                raise given
            return given

    host = PluginHost({"acme": SimpleNamespace(evaluators=m2dx.hookimpl(lambda: [Bad, Recorder]))})
    request = {
        "encoders": dict.fromkeys(("mine", "other"), lambda seed: Numbered(0.5)),
        "tasks": [task],
        "seeds": (1,),
        "host": host,
    }
    probes, failed = {"wrong": Bad(), "probe": Recorder()}, []
    with pytest.raises((PluginError, RecipeError), match=reason):
        evaluate(**request, evaluators=probes)
    scores = evaluate(**request, evaluators=probes, failed=failed)
    assert [(score.protocol, score.encoder) for score in scores] == [("probe", "mine"), ("probe", "other")]
    (error,) = failed
    assert isinstance(given, RecipeError) or "evaluator wrong ('bad' of plugin 'acme') on tones: " in str(
        error
    )


@pytest.mark.parametrize("lacking", ["tasks", "evaluators", "seeds"])
def test_there_must_be_something_to_score(task, lacking):
    request = {"tasks": [task], "evaluators": {"probe": Recorder()}, "seeds": (0,)}
    request[lacking] = type(request[lacking])()
    with pytest.raises(RecipeError, match=f"evaluation needs {lacking}, but .* under evaluation.{lacking}"):
        evaluate({"mine": lambda seed: Numbered(0.5)}, **request)


def test_seeds_must_differ(task):
    with pytest.raises(RecipeError, match=r"evaluation\.seeds must differ, .* repeats 1, 3; list each once"):
        evaluate({"a": lambda seed: Numbered(seed)}, [task], {"probe": Recorder()}, seeds=(3, 1, 2, 1, 3))


def test_every_encoder_task_and_protocol_in_order_with_progress(task, spectrum_encoder):
    seen = []
    scores = evaluate(
        {"bands": lambda seed: spectrum_encoder, "two": lambda seed: type(spectrum_encoder)(bands=2)},
        [task],
        {"knn1": Knn(k=1), "linear": Linear(lr=0.05)},
        seeds=(0, 1),
        progress=lambda done, total, text: seen.append((done, total, text)),
    )
    assert [(entry.encoder, entry.protocol) for entry in scores] == [
        ("bands", "knn1"),
        ("bands", "linear"),
        ("two", "knn1"),
        ("two", "linear"),
    ]
    assert scores[0].mean == scores[1].mean == 1.0
    assert seen[0] == (0, 8, "bands: tones, knn1") and seen[-1] == (8, 8, "done")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_scores_survive_the_file(tmp_path, task, spectrum_encoder):
    scores = evaluate(
        {"bands": lambda seed: spectrum_encoder}, [task], {"knn": Knn(), "linear": Linear()}, seeds=(0, 1)
    )
    write_scores(scores, tmp_path / "scores.json")
    assert read_scores(tmp_path / "scores.json") == [replace(score, predictions=()) for score in scores]
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert rows[0]["encoder"] == "bands" and rows[0]["ci95"] == 0.0 and rows[1]["task"] == "tones"


@pytest.mark.parametrize(
    "content", ["{", "[1]", "{}x", '[{"encoder": "a"}]', '[{"task": "a"}]', "3", '{"a": 1}']
)
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"scores\.json must be scores written by m2dx"):
        read_scores(path)


@pytest.mark.parametrize("probe", [Knn(k=1), Linear(epochs=60), Logistic()])
@pytest.mark.parametrize("splits", [("train", "train", "valid", "test"), ("1", "2", "3", "4")])
def test_predictions_are_of_their_clips_where_bad_ones_were_left_out(
    probe, splits, tone, list_dataset, spectrum_encoder
):
    clips = [tone(label, split=split) for split in splits for label in ("low", "mid", "high")]
    for row in (0, 5, 10):
        clips[row].path.write_bytes(b"not audio")
    task = ClipTask.from_dataset("tones", list_dataset(clips), max_bad_fraction=0.5)
    (score,) = evaluate({"bands": lambda seed: spectrum_encoder}, [task], {"probe": probe}, seeds=(0,))
    tested = [task.clips[row] for fold in task.folds for row in fold.test]
    assert [item.clip for item in score.predictions] == tested and clips[10] not in tested
    for item in score.predictions:
        assert item.probability == max(item.probabilities)
        assert item.label == task.label_names[item.probabilities.index(item.probability)]
    right = {item.clip.path: item.label in item.clip.labels for item in score.predictions}
    by_fold = [np.mean([right[task.clips[row].path] for row in fold.test]) for fold in task.folds]
    assert score.values == pytest.approx(by_fold)
    assert score.details["metrics"]["accuracy"]["value"] == pytest.approx(score.mean, abs=1e-6)
