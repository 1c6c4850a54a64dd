"""Fine-tuning as an evaluator: on tones, with several labels, weighted, stopped and gone on."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from m2dx_finetune.augmentation import StepRandom
from m2dx_finetune.evaluator import AudioExamples, Finetune, Run

from m2dx.contract.errors import AudioError, CheckpointError, RecipeError, TrainingError
from m2dx.contract.host import PluginHost
from m2dx.contract.package import package_version
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation.features import MeanLogMel
from m2dx.evaluation.tasks import ClipTask
from m2dx.jobs import core
from m2dx.recipe.model import field_lines
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.testing import check_evaluator
from m2dx.testing.evaluators import tone_task

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EVERYTHING = {
    "lr": 0.1,
    "optimizer": "sgd",
    "mixup": 0.3,
    "random_resize_crop": True,
    "patchout": 0.5,
    "freeze_patch_embed": True,
}
SHORT = {"epochs": 3, "warmup_epochs": 1, "batch_size": 6, "freq_mask": 8, "time_mask": 8}


@pytest.fixture(scope="module")
def encoder():
    model = ModelSection(size="tiny", depth=1)
    return random_encoder(AudioSection(crop_seconds=0.32), model, mean=-7.0, std=4.0, seed=0)


@pytest.fixture
def tones():
    with tone_task() as task:
        yield task


@pytest.fixture
def task_of(list_dataset):
    def make(clips, **options):
        return ClipTask.from_dataset("tones", list_dataset(clips), **options)

    return make


def test_it_is_an_evaluator_of_the_plugin(host):
    assert "finetune" in host.names("evaluator")
    assert "finetune" not in PluginHost({"m2dx": core}).names("evaluator")


def test_the_readme_has_each_option_with_its_default(host):
    fields = [line for line in field_lines(host) if line.path.startswith("evaluators.finetune.")]
    rows = re.findall(r"^\| `(\w+)` \| .* \| `(.*)` \| \S.* \|$", README, re.MULTILINE)
    assert rows == [(line.path.rpartition(".")[2], line.default) for line in fields]


@pytest.mark.parametrize("options", [{}, {**EVERYTHING, "accumulate": 2, "precision": "bf16"}])
def test_it_keeps_the_contract(options):
    check_evaluator(Finetune, **SHORT, **options)


def test_it_learns_tones_and_says_what_it_did(encoder, tones):
    evaluator = Finetune(lr=2e-3, epochs=12, warmup_epochs=2, batch_size=6, freq_mask=0, time_mask=0)
    (score,) = evaluator.evaluate(encoder, tones, seeds=(0, 1))
    assert score.metric == "accuracy" and len(score.values) == 2
    assert score.mean >= 0.8
    assert score.details["trained"] == "whole network"
    assert score.details["tested_epoch"] == "best on validation"
    assert all(1 <= epoch <= 12 for epoch in score.details["tested_epochs"][0])
    assert score.details["lr"] == 2e-3 and score.details["weight_decay"] == 1e-4


def test_torch_random_numbers_of_others_are_left_alone(encoder, tones):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    Finetune(**SHORT, **EVERYTHING).evaluate(encoder, tones, seeds=(0,))
    assert torch.equal(torch.rand(3), expected)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_clips_with_several_labels_are_scored_by_map(encoder, tone, task_of):
    chords = [("low",), ("mid",), ("low", "mid"), ("high",), ("low", "high"), ("mid", "high")]
    clips = [
        tone(*labels, seconds=0.3, split=split)
        for split, times in (("train", 3), ("test", 1))
        for _ in range(times)
        for labels in chords
    ]
    evaluator = Finetune(lr=2e-3, epochs=10, warmup_epochs=1, batch_size=6, freq_mask=0, time_mask=0)
    (score,) = evaluator.evaluate(encoder, task_of(clips), seeds=(0,))
    assert score.metric == "mAP" and score.mean > 0.8
    assert score.details["tested_epoch"] == "last" and score.details["tested_epochs"] == [[10]]


def test_without_a_validation_split_all_but_the_test_part_is_trained_on(encoder, tone, task_of, monkeypatch):
    seen = []

    def finish(self, checkpoint=None):
        seen.append(self)
        return original(self, checkpoint)

    original = Run.finish
    monkeypatch.setattr(Run, "finish", finish)
    clips = [tone(label, split=fold) for fold in "123" for label in ("low", "high") for _ in range(2)]
    task = task_of(clips)
    (score,) = Finetune(**SHORT).evaluate(encoder, task, seeds=(0,))
    assert len(score.values) == 3 and score.details["tested_epochs"] == [[3]] * 3
    for division, fold in zip(seen, task.folds, strict=True):
        assert len(division.valid) == 0
        assert sorted([*division.train.tolist(), *fold.test.tolist()]) == list(range(12))


def test_the_epoch_that_is_best_on_validation_is_tested_with_its_weights(encoder, tones, monkeypatch):
    scores = iter([0.2, 0.9, 0.9, 0.4, 0.123])  # four epochs, the test
    tested = []

    def score(self, rows):
        tested.append((rows.tolist(), copy.deepcopy(self.network.state_dict())))
        return next(scores)

    monkeypatch.setattr(Run, "score", score)
    (found,) = Finetune(**{**SHORT, "epochs": 4}).evaluate(encoder, tones, seeds=(0,))
    assert found.values == (0.123,) and found.details["tested_epochs"] == [[2]]
    fold = tones.folds[0]
    assert [rows for rows, _ in tested] == [fold.valid.tolist()] * 4 + [fold.test.tolist()]
    weights = [state["head.linear.weight"] for _, state in tested]
    assert torch.equal(weights[4], weights[1]) and not torch.equal(weights[4], weights[3])


def test_the_baseline_without_a_network_trains_the_linear_layer_alone(tones):
    baseline = MeanLogMel(AudioSection()).eval()
    evaluator = Finetune(lr=0.05, epochs=20, warmup_epochs=1, batch_size=6)
    (score,) = evaluator.evaluate(baseline, tones, seeds=(0,))
    assert score.metric == "accuracy (linear layer only)" and score.mean > 0.8
    assert score.details["trained"] == "linear layer"


# Examples


def test_longer_clips_are_cropped_at_random_in_training_and_at_the_start_in_tests(encoder, tone, task_of):
    clips = [tone("low", seconds=1.0, split=split) for split in ("train", "train", "test")]
    clips += [tone("high", seconds=0.1, split=split) for split in ("train", "train", "test")]
    task = task_of(clips, unit_seconds=0.3)
    examples = AudioExamples(encoder, task, Finetune(freq_mask=0, time_mask=0, cache_gb=1.0))
    rows = [torch.tensor([0, 3])]
    first, second = (
        next(examples.training(rows, [StepRandom.of(0, epoch=epoch, step=0)]))[0] for epoch in (0, 1)
    )
    assert first.shape == (2, 1, 80, 30)
    assert not torch.equal(first[0], second[0]) and torch.equal(
        first[1], second[1]
    )  # the short one is padded
    wav = encoder.standard_logmel(torch.from_numpy(examples._read(0, 0.0)))
    (test,) = examples.plain([torch.tensor([0])])
    assert torch.equal(test, wav)


def test_the_cache_changes_nothing_and_keeps_to_its_size(encoder, tone, task_of):
    clips = [tone(label, seconds=0.3, split=s) for s in ("train", "test") for label in ("low", "high")]
    clips.append(tone("low", seconds=0.9, split="train"))
    task = task_of(clips, unit_seconds=0.3)
    rows, one = [torch.arange(5)] * 2, 4 * 4800 / 1e9  # GB of one clip
    sizes = {}
    found = {}
    no_masks = {"freq_mask": 0, "time_mask": 0}
    for cache_gb in (0.0, 3.5 * one, 1.0):
        examples = AudioExamples(encoder, task, Finetune(mixup=0.5, **no_masks, cache_gb=cache_gb))
        random = [StepRandom.of(0, epoch=0, step=step) for step in range(2)]
        found[cache_gb] = [*(pair[0] for pair in examples.training(rows, random)), *examples.plain(rows)]
        sizes[cache_gb] = len(examples._cache)
    assert list(sizes.values()) == [0, 3, 5]
    first, *others = found.values()
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_file_that_went_missing_is_named(encoder, tone, task_of):
    clips = [tone(label, split=s) for s in ("train", "test") for label in ("low", "high")]
    task = task_of(clips)
    clips[0].path.unlink()
    with pytest.raises(AudioError, match=clips[0].path.name):
        Finetune(**SHORT).evaluate(encoder, task, seeds=(0,))


def test_an_epoch_of_a_given_size_takes_clips_by_their_weights_without_replacement(
    encoder, tone, task_of, monkeypatch
):
    clips = [tone("low", split="train", weight=0.01) for _ in range(10)]
    clips += [tone("high", split="train", weight=1.0) for _ in range(10)]
    clips += [tone(label, split="test") for label in ("low", "high")]
    taken = []

    def training(self, batches, random):
        taken.append([clips[row].labels[0] for batch in batches for row in batch.tolist()])
        assert len({row for batch in batches for row in batch.tolist()}) == sum(map(len, batches))
        return original(self, batches, random)

    original = AudioExamples.training
    monkeypatch.setattr(AudioExamples, "training", training)
    for epoch_size in (8, None):
        Finetune(**{**SHORT, "batch_size": 4, "epoch_size": epoch_size}).evaluate(
            encoder, task_of(clips), seeds=(0,)
        )
    weighted, all_of_them = taken[:3], taken[3:]
    assert [len(epoch) for epoch in weighted] == [8] * 3
    assert sum(epoch.count("high") for epoch in weighted) >= 21
    assert [sorted(epoch) for epoch in all_of_them] == [["high"] * 10 + ["low"] * 10] * 3


# Stopping and going on


class Stop(Exception):
    pass


@pytest.fixture
def stop_after(monkeypatch):
    """Stops the next runs when so many epochs have been trained, all runs together; None: no more."""
    original = Run.train_epoch
    left = []

    def train_epoch(self):
        if left and left[0] == 0:
            raise Stop
        original(self)
        if left:
            left[0] -= 1

    def set_left(number):
        left[:] = [] if number is None else [number]

    monkeypatch.setattr(Run, "train_epoch", train_epoch)
    return set_left


def states_by_epoch(monkeypatch):
    """Weights and optimizer after each epoch, by run and epoch; the last time that it was trained."""
    states = {}
    original = Run.train_epoch

    def train_epoch(self):
        original(self)
        states[self.what, self.epoch] = copy.deepcopy(
            (self.network.state_dict(), self.optimizer.state_dict()["state"])
        )

    monkeypatch.setattr(Run, "train_epoch", train_epoch)
    return states


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_a_stopped_run_goes_on_bit_by_bit(encoder, tones, tmp_path, stop_after, monkeypatch, optimizer):
    options = {**SHORT, **EVERYTHING, "lr": 0.01, "optimizer": optimizer}
    states = states_by_epoch(monkeypatch)
    straight = Finetune(**options).evaluate(encoder, tones, seeds=(0, 1))
    expected = dict(states)
    states.clear()
    evaluator = Finetune(**options, checkpoint_dir=tmp_path / "states")
    for epochs in (1, 3):  # in the first run, then in the second one
        stop_after(epochs)
        with pytest.raises(Stop):
            evaluator.evaluate(encoder, tones, seeds=(0, 1))
    assert len(list((tmp_path / "states").glob("*.pt"))) == 2
    stop_after(None)
    assert evaluator.evaluate(encoder, tones, seeds=(0, 1)) == straight
    assert list(states) == list(expected) and len(states) == 6
    for (weights, moments), (straight_weights, straight_moments) in zip(
        states.values(), expected.values(), strict=True
    ):
        torch.testing.assert_close(weights, straight_weights, rtol=0, atol=0)
        torch.testing.assert_close(moments, straight_moments, rtol=0, atol=0)


def test_what_is_done_is_not_trained_again_and_keeps_little(encoder, tones, tmp_path, stop_after):
    evaluator = Finetune(**SHORT, checkpoint_dir=tmp_path)
    first = evaluator.evaluate(encoder, tones, seeds=(3,))
    (file,) = tmp_path.glob("tones-test-seed3-*.pt")
    assert file.stat().st_size < 10_000
    stop_after(0)
    assert evaluator.evaluate(encoder, tones, seeds=(3,)) == first


def test_checkpoints_belong_to_weights_settings_task_and_seed(encoder, tones, tmp_path, stop_after):
    Finetune(**SHORT, checkpoint_dir=tmp_path).evaluate(encoder, tones, seeds=(0,))
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        other.encoder.cls_token += 1e-3
    fewer = replace(tones, folds=(replace(tones.folds[0], train=tones.folds[0].train[1:]),))
    stop_after(0)
    for what, task, options, seed in (
        (other, tones, {}, 0),
        (encoder, tones, {"lr": 1e-3}, 0),
        (encoder, tones, {"mixup": 0.1}, 0),
        (encoder, tones, {"patchout": 0.1}, 0),
        (encoder, fewer, {}, 0),
        (encoder, tones, {}, 1),
    ):
        with pytest.raises(Stop):
            Finetune(**{**SHORT, **options}, checkpoint_dir=tmp_path).evaluate(what, task, seeds=(seed,))
    Finetune(**SHORT, checkpoint_dir=tmp_path, cache_gb=0).evaluate(encoder, tones, seeds=(0,))


@pytest.mark.parametrize("upgraded", ["m2dx", "m2dx-finetune"])
def test_what_another_version_has_done_is_done_again(
    encoder, tones, tmp_path, stop_after, monkeypatch, upgraded
):
    evaluator = Finetune(**SHORT, checkpoint_dir=tmp_path)
    evaluator.evaluate(encoder, tones, seeds=(0,))
    stop_after(0)
    evaluator.evaluate(encoder, tones, seeds=(0,))
    newer = lambda package="m2dx": "99.0" if package == upgraded else package_version(package)  # noqa: E731
    monkeypatch.setattr("m2dx_finetune.evaluator.package_version", newer)
    with pytest.raises(Stop):
        evaluator.evaluate(encoder, tones, seeds=(0,))


def test_a_damaged_checkpoint_is_named_with_what_to_do(encoder, tones, tmp_path):
    evaluator = Finetune(**SHORT, checkpoint_dir=tmp_path)
    evaluator.evaluate(encoder, tones, seeds=(0,))
    (file,) = tmp_path.glob("*.pt")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=rf"{file.name}.*remove it to start this fine-tuning again"):
        evaluator.evaluate(encoder, tones, seeds=(0,))


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 5}, r"warmup_epochs must be less than epochs \(5\), but is 5"),
        (
            {"batch_size": 7, "accumulate": 4},
            r"batch_size must be 2 x accumulate or more.* is 7 with accumulate 4",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        Finetune(**options)


def test_a_loss_that_is_not_finite_stops_the_run(encoder, tones):
    broken = copy.deepcopy(encoder)
    with torch.no_grad():
        broken.encoder.cls_token.fill_(float("nan"))
    with pytest.raises(
        TrainingError, match=r"finetune, tones, test, seed 0: the loss must be finite.*epoch 1"
    ):
        Finetune(**SHORT).evaluate(broken, tones, seeds=(0,))


def test_a_training_part_of_one_clip_is_refused(encoder, tones):
    fold = replace(tones.folds[0], train=tones.folds[0].train[:1])
    with pytest.raises(RecipeError, match="'test' of evaluation task 'tones' must have two clips or more"):
        Finetune(**SHORT).evaluate(encoder, replace(tones, folds=(fold,)), seeds=(0,))


def test_few_clips_make_one_batch_and_the_rest_of_a_batch_waits(encoder, tones):
    sizes = []
    for batch_size in (64, 5):
        evaluator = Finetune(**{**SHORT, "batch_size": batch_size})
        original = AudioExamples.training

        def training(self, batches, random, original=original):
            sizes.append([len(batch) for batch in batches])
            return original(self, batches, random)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AudioExamples, "training", training)
            evaluator.evaluate(encoder, tones, seeds=(0,))
    assert sizes == [[12]] * 3 + [[5, 5]] * 3
