"""Logistic regression: scikit-learn's, without anything random."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from m2dx.contract.components import Clip, Features, OverTime
from m2dx.contract.errors import RecipeError
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation import tasks
from m2dx.evaluation.features import FeatureCache
from m2dx.evaluation.logistic import CS, Logistic, _Candidate
from m2dx.evaluation.solver import NEVER
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.testing.evaluators import tone_task


class Task:
    """As much of a task as a fit needs."""

    def __init__(self, num_classes: int, clips: list[Clip]) -> None:
        self.label_names = tuple("abcdefgh"[:num_classes])
        self.clips = tuple(clips)


def blobs(n: int, width: int, classes: int, *, spread: float = 1.0) -> tuple[Features, Task]:
    """Features around class centres, of very different scales, and a clip of each."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % classes
    centres = torch.randn(classes, width, generator=generator)
    x = centres[y] + spread * torch.randn(n, width, generator=generator)
    x = 50 + x * torch.logspace(-2, 2, width)
    return Features(x, y), Task(classes, [Clip(f"{row}.wav") for row in range(n)])


@pytest.mark.parametrize(("n", "width", "classes"), [(60, 5, 3), (40, 90, 3), (40, 90, 2), (60, 5, 2)])
def test_the_layer_is_that_of_scikit_learn_on_standardised_features(n, width, classes):
    found, task = blobs(n, width, classes)
    rows = np.arange(n)
    layer = Logistic(c=0.3, whiten=0).fit(task, found, rows)
    x = found.x.double()
    standard = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    expected = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000).fit(standard, found.y.numpy())
    ours = layer(found.x).softmax(1)
    np.testing.assert_allclose(ours, expected.predict_proba(standard), atol=1e-4)


def test_multi_label_is_one_regression_by_class_with_constants_where_nothing_can_be_learned():
    found, _ = blobs(80, 6, 4)
    y = torch.nn.functional.one_hot(found.y, 4).float()
    y = torch.cat([y + y.roll(1, dims=1), torch.zeros(80, 1), torch.ones(80, 1)], dim=1)
    task = Task(6, [Clip(f"{row}.wav") for row in range(80)])
    layer = Logistic(c=0.1, whiten=0).fit(task, Features(found.x, y), np.arange(80))
    x = found.x.double()
    standard = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    for column in range(4):
        expected = LogisticRegression(C=0.1, tol=1e-8).fit(standard, y[:, column].numpy())
        ours = layer(found.x)[:, column].sigmoid()
        np.testing.assert_allclose(ours, expected.predict_proba(standard)[:, 1], atol=1e-4)
    assert (layer(found.x)[:, 4] == NEVER).all() and (layer(found.x)[:, 5] == -NEVER).all()


def test_c_is_chosen_by_the_loss_and_grows_with_what_the_features_tell():
    noisy, clear = blobs(90, 40, 3, spread=8.0), blobs(90, 40, 3, spread=0.3)
    chosen = [Logistic().fit(task, found, np.arange(90)).c for found, task in (noisy, clear)]
    assert chosen[0] < chosen[1] and set(chosen) <= set(CS)


@pytest.mark.parametrize(("told_by", "whiten"), [(0, 0.0), (1, 0.5)])
def test_features_are_whitened_where_weak_axes_tell_the_classes(told_by, whiten):
    """Forty features that say one thing, and forty beside them that differ by a tenth of it."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    common, own = torch.randn(120, 1, generator=generator), 0.1 * torch.randn(120, 40, generator=generator)
    (common if told_by == 0 else own[:, :1])[:, 0] += (2.0, 0.2)[told_by] * (2 * y - 1)
    found, task = Features(common + own, y), Task(2, [Clip(f"{row}.wav") for row in range(120)])
    fitted = Logistic().fit(task, found, np.arange(120))
    assert fitted.whiten == whiten
    assert (fitted(found.x).argmax(1) == y).float().mean() > 0.9
    assert Logistic(whiten=0.0).fit(task, found, np.arange(120)).whiten == 0.0


def test_groups_stay_together_when_c_is_chosen():
    # each patient has a mark of its own that tells the class of its clips, and nothing else does
    patients = torch.arange(60) // 5
    found = Features(torch.nn.functional.one_hot(patients, 12).float(), patients % 2)
    alone = Task(2, [Clip(f"{row}.wav") for row in range(60)])
    grouped = Task(
        2, [replace(clip, group=str(int(p))) for clip, p in zip(alone.clips, patients, strict=True)]
    )
    as_alone, as_grouped = (Logistic().fit(task, found, np.arange(60)).c for task in (alone, grouped))
    assert as_grouped < as_alone
    one = Task(2, [replace(clip, group="one") for clip in alone.clips])
    assert Logistic().fit(one, found, np.arange(60)).c == as_alone  # of one group, by its files


def test_a_penalty_is_chosen_where_each_class_has_one_group():
    """Held out as a whole, no class would have a loss, and the strongest penalty would be taken."""
    found, task = blobs(120, 8, 4, spread=0.3)
    labelled = [replace(clip, labels=(f"{y}",)) for clip, y in zip(task.clips, found.y.tolist(), strict=True)]
    alone = Logistic().fit(Task(4, labelled), found, np.arange(120))
    grouped = Task(4, [replace(clip, group=clip.labels[0]) for clip in labelled])
    fitted = Logistic().fit(grouped, found, np.arange(120))
    assert fitted.c == alone.c > CS[0] and fitted.held_out == alone.held_out == "files"


def test_without_a_class_of_two_clips_nothing_is_chosen_and_the_score_says_so():
    found, _ = layered(0, n=3)
    task = Task(3, [Clip(f"{row}.wav", labels=(f"{row}",)) for row in range(3)])
    fitted = Logistic().fit(task, found, np.arange(3))
    assert (fitted.c, fitted.layer, fitted.held_out) == (1.0, 4, "nothing")


@pytest.mark.parametrize("present", [[1], [0, 2]])
def test_classes_without_training_clips_are_never_said(present):
    found, task = blobs(30, 4, 3)
    rows = np.flatnonzero(np.isin(found.y.numpy(), present))
    said = Logistic().fit(task, found, rows)(found.x).argmax(1)
    assert set(said.tolist()) <= set(present)


def test_the_deviation_over_time_is_used_and_kept_beside_the_mean(tmp_path):
    audio = AudioSection(crop_seconds=0.64)
    encoder = random_encoder(audio, ModelSection(size="tiny", depth=1), mean=-7.0, std=4.0, seed=0)
    with tone_task() as task:
        task = replace(task, cache=FeatureCache(tmp_path))
        wav = next(iter(task.batches(encoder, 32)))
        frames = encoder(wav).detach()
        found = task.features(encoder)
        torch.testing.assert_close(found.x, encoder.clip(wav).detach())
        torch.testing.assert_close(found.layers[1].deviation, frames.std(1, correction=0))
        (embedded,) = encoder.encode_logmel(encoder.standard_logmel(wav), layers=(0,))
        torch.testing.assert_close(found.layers[0].mean, embedded.detach().mean(1))
        again = replace(task, _features=type(task._features)()).features(encoder)
        assert (
            torch.equal(again.layers[1].deviation, found.layers[1].deviation)
            and len(list(tmp_path.iterdir())) == 1
        )
        scores = [Logistic().evaluate(encoder, task, seeds=seeds) for seeds in ((0,), (5, 6))]
    assert scores[0] == scores[1]
    said = scores[0][0].predictions
    assert [p.clip for p in said] == [task.clips[row] for row in task.folds[0].test]
    assert scores[0][0].mean == np.mean([p.label in p.clip.labels for p in said])
    assert scores[0][0].ci95 is None and scores[0][0].details["c"][0] in CS


def test_folds_and_chords(tone, list_dataset, spectrum_encoder):
    sets = [("low",), ("mid",), ("low", "mid"), ("low", "high"), ("high",)]
    clips = [tone(*labels, split=fold) for fold in ("1", "2", "3") for labels in sets for _ in range(2)]
    task = ClipTask.from_dataset("chords", list_dataset(clips))
    (score,) = Logistic(c=10.0).evaluate(spectrum_encoder, task, seeds=(0,))
    assert score.metric == "mAP" and len(score.values) == 3 and score.mean > 0.9


def layered(told_by: int | None, *, deviation: bool = False, n: int = 90) -> tuple[Features, Task]:
    """Features of layers 0, 2 and 4, in one of which mean or deviation tells the class; noise elsewhere."""
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(n) % 3
    layers = {k: OverTime(*(torch.randn(n, 12, generator=generator) for _ in "abc")) for k in (0, 2, 4)}
    if told_by is not None:
        layers[told_by][deviation][:, :3] += 4 * torch.nn.functional.one_hot(y, 3)
    return Features(layers[4].mean, y, layers), Task(3, [Clip(f"{row}.wav") for row in range(n)])


@pytest.mark.parametrize("deviation", [False, True])
@pytest.mark.parametrize("told_by", [0, 2, 4])
def test_the_layer_is_chosen_that_tells_the_classes(told_by, deviation):
    found, task = layered(told_by, deviation=deviation)
    logistic = Logistic()
    layer = logistic.fit(task, found, np.arange(90))
    assert layer.layer == told_by
    assert (layer(found.pooled(told_by, logistic.pooling)).argmax(1) == found.y).float().mean() > 0.95


@pytest.mark.parametrize(
    ("options", "layer", "width"),
    [
        ({"layers": "last"}, 4, 24),
        ({"layers": (0,)}, 0, 24),
        ({"layers": (0, 4)}, 4, 24),  # 2 would be the best
        ({"layers": (2, 0), "pooling": "mean"}, 2, 12),
        ({"c": 0.1}, 2, 24),
        ({"class_weights": "balanced"}, 2, 24),
    ],
)
def test_options_say_which_layers_and_what_of_them(options, layer, width):
    found, task = layered(2)
    found.layers[4].mean[:, 3:6] += 2 * torch.nn.functional.one_hot(found.y, 3)
    fitted = Logistic(**options).fit(task, found, np.arange(90))
    assert fitted.layer == layer and fitted.weight.shape == (3, width)
    assert fitted.c == options.get("c", fitted.c)


def test_a_layer_is_not_chosen_by_the_clips_that_test_it():
    found, task = layered(2)
    train = np.arange(60)
    expected = Logistic().fit(task, found, train)
    for mean, deviation, _ in found.layers.values():
        mean[60:], deviation[60:] = 0.0, 0.0
    found.y[60:] = 0
    again = Logistic().fit(task, found, train)
    assert torch.equal(expected.weight, again.weight) and expected.layer == again.layer


@pytest.mark.parametrize(("rows", "held", "layer"), [(60, None, 4), (90, np.arange(60, 90), 2)])
def test_a_layer_that_has_learnt_the_labels_of_a_part_is_not_chosen_by_another_one(rows, held, layer):
    found, task = layered(2)
    found.layers[4].mean[:60, :3] += 20 * torch.nn.functional.one_hot(found.y[:60], 3)
    fitted = np.arange(60)
    own = Logistic() if held is None else Logistic().chosen(task, found, fitted, held)
    assert own.fit(task, found, np.arange(rows)).layer == layer


@pytest.mark.parametrize("chosen_by", ["folds", "valid"])
def test_clips_that_only_choose_are_not_fitted(chosen_by, spectrum_encoder, monkeypatch):
    fitted, fit = [], Logistic.fit
    monkeypatch.setattr(
        Logistic, "fit", lambda own, task, found, rows: fitted.append(rows) or fit(own, task, found, rows)
    )
    with tone_task() as task:
        (fold,) = task.folds
        for only in (fold.valid[:0], fold.valid[:1], fold.valid):
            Logistic(chosen_by=chosen_by).evaluate(
                spectrum_encoder, replace(task, folds=(replace(fold, only_chooses=only),)), seeds=(0,)
            )
    assert len(fold.valid) > 1
    assert [len(rows) for rows in fitted] == [len(fold.fitted) - n for n in (0, 1, len(fold.valid))]
    assert fitted[2].tolist() == sorted(fold.train.tolist())


@pytest.mark.parametrize(
    ("chosen_by", "has_valid", "held_out"),
    [("folds", True, "files"), ("valid", True, "the validation part"), ("valid", False, "files")],
)
def test_the_validation_part_chooses_where_it_is_asked_to_and_there_is_one(
    chosen_by, has_valid, held_out, spectrum_encoder
):
    with tone_task() as task:
        if not has_valid:
            task = replace(task, folds=tuple(replace(fold, valid=fold.valid[:0]) for fold in task.folds))
        (score,) = Logistic(chosen_by=chosen_by).evaluate(spectrum_encoder, task, seeds=(0,))
    assert score.details["held_out"] == [held_out]


@pytest.mark.parametrize(("depth", "layers"), [(1, {0, 1}), (4, {0, 1, 2, 3, 4}), (12, {0, 3, 5, 8, 10, 12})])
def test_layers_are_spread_over_the_blocks_and_others_come_when_asked_for(depth, layers, monkeypatch):
    audio = AudioSection(sample_rate=8000, n_mels=16, crop_seconds=0.32)
    sizes = {"size": "tiny", "patch_size": (8, 8), "predictor": {"embed_dim": 64, "num_heads": 1}}
    encoder = random_encoder(audio, ModelSection(depth=depth, **sizes), mean=-7.0, std=4.0, seed=0)
    with tone_task() as task:
        assert task.features(encoder).layers.keys() == layers
        first = task.features(encoder).layers
        more = task.features(encoder, layers=(1,)).layers
        assert more.keys() == layers | {1}
        again = task.features(encoder).layers  # what another one has asked for is no choice
        assert again.keys() == layers and (again[depth] is more[depth] or again[depth] is first[depth])
        torch.testing.assert_close(more[depth][0], task.features(encoder).x)
        with pytest.raises(RecipeError, match=f"must be 0 to {depth}, .* has {depth + 1}"):
            Logistic(layers=(1, depth + 1)).evaluate(encoder, task, seeds=(0,))
        monkeypatch.setattr(tasks, "MOST_BYTES", 1000)  # of large sets
        assert replace(task, _features=type(task._features)()).features(encoder).layers.keys() == {depth}


@pytest.mark.parametrize(
    ("losses", "chosen", "tried"),
    [
        ([5.0, 4.0, 3.0, 2.0, 1.0, 1.4], 1.0, 6),
        ([6.13, 6.41, 5.39, 5.3, 5.89, 7.46], 0.1, 6),  # rises before it falls
        ([2.0, 2.0, 2.1, 3.1, 0.1, 0.1], 1e-4, 4),  # the stronger penalty of two alike
    ],
)
def test_the_search_goes_on_where_the_loss_rises_a_little(losses, chosen, tried, monkeypatch):
    given = []
    monkeypatch.setattr(_Candidate, "loss", lambda self, c: given.append(c) or losses[len(given) - 1])
    assert object.__new__(_Candidate).best_c() == chosen and len(given) == tried
