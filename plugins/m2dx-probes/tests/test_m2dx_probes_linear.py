from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from m2dx_probes import linear
from m2dx_probes.linear import Linear, balance, fit
from sklearn.linear_model import LogisticRegression

from m2dx.contract.components import Fold
from m2dx.contract.errors import TrainingError
from m2dx.data.csv_list import CsvDataset
from m2dx.evaluation.features import MeanLogMel, Standardiser
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.schema import AudioSection

SOUNDS = Path(__file__).parents[3] / "examples" / "sounds"


def blobs(*, classes=3, clips=90, width=6, spread=1.5):
    """Features around class centres, with class numbers, and three folds of unequal sizes."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=generator) * 2
    y = torch.arange(clips) % classes
    x = 5 + 3 * (centres[y] + spread * torch.randn(clips, width, generator=generator))
    rows = np.random.default_rng(0).permutation(clips)
    parts = [rows[:20], rows[20:50], rows[50:]]
    folds = tuple(Fold(str(n), parts[n], parts[(n + 1) % 3], parts[(n + 2) % 3]) for n in range(3))
    return x, y, folds


SETTINGS = Linear(lr=1e-2, epochs=40, patience=5, batch_size=16)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_run_in_the_batch_is_as_alone(multi_label):
    x, y, folds = blobs()
    if multi_label:
        y = torch.nn.functional.one_hot(y, 3).float() + torch.nn.functional.one_hot(y.flip(0), 3)
        y = y.clamp_max(1.0)
    together = fit(x, y, folds, (0, 7), num_classes=3, options=SETTINGS)
    for fold, row in zip(folds, together, strict=True):
        for seed, run in zip((0, 7), row, strict=True):
            ((alone,),) = fit(x, y, (fold,), (seed,), num_classes=3, options=SETTINGS)
            assert run.epoch == alone.epoch
            torch.testing.assert_close(run.weight, alone.weight, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(run.test_logits, alone.test_logits, atol=1e-4, rtol=1e-4)
    best = {run.epoch for row in together for run in row}
    assert len(best) > 1  # they did stop at different epochs, so the batch did shrink


def test_a_run_is_plain_adam_on_a_linear_layer():
    x, y, (fold, *_) = blobs()
    settings = Linear(lr=1e-2, epochs=3, patience=3, batch_size=8, weight_decay=0.01)
    ((run,),) = fit(x, y, (fold,), (3,), num_classes=3, options=settings)

    generator = torch.Generator().manual_seed(3)
    drawn = (torch.rand(7, 3, generator=generator) * 2 - 1) / 6**0.5
    layer = torch.nn.Linear(6, 3)
    layer.weight.data, layer.bias.data = drawn[:6].T.clone(), drawn[6].clone()
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2, weight_decay=0.01)
    train = torch.from_numpy(fold.train)
    standard = (x - x[train].mean(0)) / x[train].std(0, correction=0)
    kept = {}
    for epoch in (1, 2, 3):
        for rows in train[torch.randperm(len(train), generator=generator)].split(8):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(layer(standard[rows]), y[rows]).backward()
            adam.step()
        kept[epoch] = layer.weight.detach().T.clone()
    torch.testing.assert_close(run.weight, kept[run.epoch], atol=1e-5, rtol=1e-4)


def test_seeds_differ_and_repeat():
    x, y, folds = blobs()
    runs = fit(x, y, folds[:1], (0, 1, 0), num_classes=3, options=SETTINGS)[0]
    assert not torch.allclose(runs[0].weight, runs[1].weight)
    torch.testing.assert_close(runs[0].weight, runs[2].weight)


def test_early_stopping_keeps_the_best_epoch():
    x, y, (fold, *_) = blobs(spread=3.0)
    patient = Linear(lr=0.1, epochs=60, patience=60, batch_size=4)
    ((free,),) = fit(x, y, (fold,), (0,), num_classes=3, options=patient)
    assert free.epoch < 40  # it overfits, so later epochs are worse
    impatient = Linear(lr=0.1, epochs=60, patience=60 - free.epoch, batch_size=4)
    ((stopped,),) = fit(x, y, (fold,), (0,), num_classes=3, options=impatient)
    torch.testing.assert_close(stopped.weight, free.weight)
    valid = Standardiser.fit(x[fold.train])(x[fold.valid])
    correct = ((valid @ free.weight + free.bias).argmax(1) == y[fold.valid]).float().mean()
    assert correct.item() == pytest.approx(free.merit)
    last = Linear(lr=0.1, epochs=free.epoch, patience=60, batch_size=4)
    torch.testing.assert_close(
        fit(x, y, (fold,), (0,), num_classes=3, options=last)[0][0].weight, free.weight
    )


def test_patience_ends_a_run():
    x, y, (fold, *_) = blobs()
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]  # nothing to learn
    settings = Linear(lr=0.1, epochs=1000, patience=3, batch_size=8)
    ((run,),) = fit(x, y, (fold,), (0,), num_classes=3, options=settings)
    longer = Linear(lr=0.1, epochs=run.epoch + 3, patience=1000, batch_size=8)
    assert fit(x, y, (fold,), (0,), num_classes=3, options=longer)[0][0].epoch == run.epoch


def test_a_later_epoch_that_is_as_good_is_kept_and_resets_the_patience():
    x, y, (fold, *_) = blobs(spread=0.1)
    settings = Linear(lr=0.1, epochs=20, patience=3, batch_size=8)
    ((run,),) = fit(x, y, (fold,), (0,), num_classes=3, options=settings)
    assert run.merit == 1.0 and run.epoch == 20


def test_the_loss_may_choose_the_epoch():
    x, y, (fold, *_) = blobs(spread=3.0)
    settings = Linear(lr=0.1, epochs=60, patience=60, batch_size=4, early_stopping="loss")
    ((run,),) = fit(x, y, (fold,), (0,), num_classes=3, options=settings)
    standardise = Standardiser.fit(x[fold.train])

    def valid_loss(epochs):
        ((other,),) = fit(x, y, (fold,), (0,), num_classes=3, options=replace(settings, epochs=epochs))
        logits = standardise(x[fold.valid]) @ other.weight + other.bias
        return torch.nn.functional.cross_entropy(logits, y[fold.valid]).item()

    losses = [valid_loss(epochs) for epochs in range(1, 12)]  # of the best epoch so far
    assert losses == sorted(losses, reverse=True)
    assert run.epoch < 12 and losses[-1] == pytest.approx(losses[run.epoch - 1])
    assert run.epoch > 1 and losses[run.epoch - 1] < losses[run.epoch - 2]


def test_a_loss_that_is_not_finite_stops():
    x, y, (fold, *_) = blobs()
    with pytest.raises(TrainingError, match="lower `lr`"):
        fit(x, y, (fold,), (0,), num_classes=3, options=Linear(lr=1e37))


def test_multi_label_learns(tone, list_dataset):
    sets = [("low",), ("mid",), ("low", "mid"), ("low", "high"), ("high",)]
    clips = [tone(*labels, split=s) for s in ("train", "train", "valid", "test") for labels in sets]
    task = ClipTask.from_dataset("chords", list_dataset(clips))
    (score,) = Linear(lr=0.05).evaluate(MeanLogMel(AudioSection()), task, seeds=(0, 1))
    assert (score.metric, len(score.values)) == ("mAP", 2)
    assert score.mean > 0.99


def test_scores_are_by_seed_for_splits_and_by_fold_for_one_seed(tone, list_dataset):
    clips = [tone(x, split=s) for s in "123" for x in ("low", "mid", "high")]
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    by_seed = Linear(lr=0.05).evaluate(MeanLogMel(AudioSection()), task, seeds=(0, 1))[0]
    by_fold = Linear(lr=0.05).evaluate(MeanLogMel(AudioSection()), task, seeds=(0,))[0]
    assert (len(by_seed.values), len(by_fold.values)) == (2, 3)
    assert np.shape(by_seed.details["best_epochs"]) == (3, 2)
    assert by_seed.mean == 1.0


def test_real_sounds_agree_with_logistic_regression():
    encoder = MeanLogMel(AudioSection())
    task = ClipTask.from_dataset("drums", CsvDataset(path=SOUNDS / "drums.csv"))
    (score,) = Linear().evaluate(encoder, task, seeds=(0, 1, 2))
    found, (fold,) = task.features(encoder), task.folds
    standardise = Standardiser.fit(found.x[fold.train])
    reference = LogisticRegression(max_iter=2000).fit(standardise(found.x[fold.train]), found.y[fold.train])
    expected = reference.score(standardise(found.x[fold.test]), found.y[fold.test])
    assert len(task.clips) == 335 and len(fold.test) == 79
    assert score.mean == pytest.approx(expected, abs=0.06)  # 1 clip is 0.013


def test_predictions_are_the_first_seeds_and_make_its_accuracy():
    task = ClipTask.from_dataset("drums", CsvDataset(path=SOUNDS / "drums.csv"))
    (score,) = Linear(epochs=3).evaluate(MeanLogMel(AudioSection()), task, seeds=(1, 0))
    hits = [item.label in item.clip.labels for item in score.predictions]
    assert np.mean(hits) == pytest.approx(score.values[0])
    assert [item.clip for item in score.predictions] == [task.clips[row] for row in task.folds[0].test]
    assert all(1 / len(task.label_names) <= item.probability <= 1 for item in score.predictions)


def test_balanced_weights_by_hand():
    y, train = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 1, 2, 3])
    # 4 clips of 2 classes, 3 and 1: 4 / (2 * 3), 4 / (2 * 1); a class without training clips counts as if it had one
    torch.testing.assert_close(balance(y, train), torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0, 2.0]))
    hot = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    found = balance(hot, torch.arange(4))
    torch.testing.assert_close(found[:, 0], torch.tensor([2.0, 2 / 3, 2 / 3, 2 / 3]))
    assert found[:, 1].isfinite().all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_balanced_classes_are_as_if_the_rare_one_came_as_often(multi_label):
    """Steps of all clips: nine of one class and three of another, or the three three times."""
    x, _, _ = blobs(classes=2, clips=24)
    rare, common = torch.arange(1, 7, 2), torch.arange(0, 18, 2)
    y = torch.arange(24) % 2
    y = torch.nn.functional.one_hot(y, 2).float() if multi_label else y
    rows = [torch.cat([common, rare]), torch.cat([common, rare, rare, rare])]
    x = (x - x[rows[1]].mean(0)) / x[rows[1]].std(0)
    runs = []
    for some, weights in zip(rows, ("balanced", None), strict=True):
        settings = Linear(lr=1e-2, epochs=30, patience=30, batch_size=64, class_weights=weights)
        fold = Fold("t", some.numpy(), some.numpy(), np.arange(18, 24))
        part = linear._Part.of(x, y, fold, balanced=weights is not None)
        part = replace(part, x=x, valid_x=x[some])  # standardised alike
        run = linear.LinearRun.start(part, 0, 2)
        stack = linear._Stack([run], settings.batch_size)
        optimizer = torch.optim.SGD(run.layer, lr=0.5)
        for _ in range(30):
            stack.train_epoch(optimizer)
        runs.append(run.layer[0].detach().clone())
    torch.testing.assert_close(*runs, atol=1e-4, rtol=1e-3)
