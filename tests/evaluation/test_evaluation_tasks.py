import gc
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from m2dx.contract.components import Clip, Features, TaskInfo
from m2dx.contract.errors import PluginError, RecipeError, TrainingError
from m2dx.evaluation import tasks
from m2dx.evaluation.tasks import ClipTask, mean_seconds
from m2dx.recipe.schema import EvaluationTaskSection

SECTION = EvaluationTaskSection.model_construct(dataset=None)


@pytest.fixture
def clips(tone):
    return [
        tone(label, split=split, seconds=seconds)
        for split in ("train", "train", "valid", "test")
        for label, seconds in (("low", 0.1), ("high", 0.3))
    ]


def test_a_task_knows_its_classes_unit_and_targets(clips, list_dataset):
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    assert task.label_names == ("high", "low")
    assert task.unit_seconds == pytest.approx(0.2)
    assert (task.metric, task.multi_label, task.bad, task.warnings) == ("accuracy", False, (), ())
    assert task.targets().tolist() == [[0, 1], [1, 0]] * 4
    assert task.clips[1].duration == pytest.approx(0.3)
    (fold,) = task.folds
    assert fold.test.tolist() == [6, 7]


@pytest.mark.parametrize(
    ("seconds", "expected", "longer"),
    [
        ([1.0, 2.0, 6.0], 3.0, 0),
        ([1.0] * 9 + [10.0], 1.9, 0),
        ([1.0] * 9 + [10_800.0], 1.9, 1),  # else 20 minutes for all
        ([1.0] * 8 + [36.0, 2.0**31], 2.8, 2),
        ([10_800.0] * 3, 3600.0, 3),
        ([], 0.0, 0),
    ],
)
def test_a_few_long_clips_do_not_set_the_length_of_all(
    seconds: list[float], expected: float, longer: int, caplog: pytest.LogCaptureFixture
) -> None:
    clips = [Clip(Path(f"{i}.wav"), duration=duration) for i, duration in enumerate(seconds)]
    assert mean_seconds("tones", clips) == pytest.approx(expected)
    assert len(caplog.records) == (longer > 0)
    assert not longer or f"{longer} of {len(clips)} clips are over" in caplog.text


def test_long_clips_are_encoded_a_few_at_a_time(clips, list_dataset, monkeypatch):
    task = ClipTask.from_dataset("tones", list_dataset(clips), unit_seconds=0.2)
    sizes: list[int] = []
    encoder = type("Encoder", (), {})
    found = Features(torch.zeros(8, 1), torch.zeros(8))
    monkeypatch.setattr(tasks, "extract", lambda encoder, task, batch_size: sizes.append(batch_size) or found)
    for seconds in (None, 0.2, 18.75, 20.0, 600.0, 3600.0):
        replace(task, unit_seconds=seconds).features(encoder())
    assert sizes == [32, 32, 32, 30, 1, 1]


def test_two_labels_on_a_clip_make_it_multi_label(clips, tone, list_dataset):
    task = ClipTask.from_dataset("tones", list_dataset([*clips, tone("low", "high", split="test")]))
    assert task.metric == "mAP"
    assert task.targets()[-1].tolist() == [1, 1]
    assert task.warnings == ()  # one of nine


def test_a_stray_second_label_that_makes_the_score_map_is_told(clips, tone, list_dataset):
    stray = tone("low", "high", split="train")
    task = ClipTask.from_dataset("tones", list_dataset([*(clips * 3), stray]))
    assert any(
        f"1 of 25 clips have several labels, so that the score is mAP: {stray.path}" in w
        for w in task.warnings
    )


def test_all_problems_of_the_list_are_in_one_error(clips, list_dataset):
    broken = [replace(clips[0], labels=()), replace(clips[1], split=None), *clips[2:]]
    with pytest.raises(RecipeError) as caught:
        ClipTask.from_dataset("tones", list_dataset(broken))
    text = str(caught.value)
    assert "1 clips have no label" in text and str(clips[0].path) in text
    assert "1 clips have no split or fold" in text and str(clips[1].path) in text


def test_one_class_is_not_a_task(clips, list_dataset):
    with pytest.raises(RecipeError, match="two classes or more, but there are 1"):
        ClipTask.from_dataset("tones", list_dataset(clips[::2]))


def test_an_empty_task_says_what_is_missing(list_dataset):
    dataset = list_dataset([])
    dataset.missing = lambda: ["download it from the moon"]
    with pytest.raises(RecipeError, match=r"'tones' has no clips\. download it from the moon"):
        ClipTask.from_dataset("tones", dataset)


def test_a_data_set_that_fails_is_named(list_dataset):
    class Failing(list_dataset):
        def clips(self, split=None):
            raise KeyError("of the plugin")

    with pytest.raises(
        PluginError, match=r"data set 'tones' \(component 'list'\): clips\(\) failed: KeyError"
    ):
        ClipTask.from_dataset("tones", Failing([]))


def test_a_group_in_train_and_test_is_an_error_that_names_it(clips, list_dataset):
    clips[0], clips[-1] = replace(clips[0], group="ann"), replace(clips[-1], group="ann")
    with pytest.raises(RecipeError, match=r"group 'ann' \(in test, train\)"):
        ClipTask.from_dataset("tones", list_dataset(clips))
    task = ClipTask.from_dataset("tones", list_dataset(clips), shared_groups="warn")
    assert "group 'ann'" in task.warnings[0]


def test_a_group_in_two_folds_is_an_error(clips, list_dataset):
    folds = [replace(clip, split=str(n // 2), group=f"g{n // 3}") for n, clip in enumerate(clips)]
    with pytest.raises(RecipeError, match=r"2 are in both.*group 'g0' \(in 0, 1\)"):
        ClipTask.from_dataset("tones", list_dataset(folds))


def test_a_group_shared_with_validation_is_a_warning(clips, list_dataset, caplog):
    clips[0], clips[4] = replace(clips[0], group="ann"), replace(clips[4], group="ann")
    with caplog.at_level(logging.WARNING):
        task = ClipTask.from_dataset("tones", list_dataset(clips))
    assert (
        "1 groups or clips are shared with the validation split, whose clips only choose" in task.warnings[0]
    )
    assert task.warnings[0] in caplog.text


def test_classes_without_training_clips_are_counted(clips, tone, list_dataset):
    task = ClipTask.from_dataset("tones", list_dataset([*clips, tone("mid", split="test")]))
    assert task.warnings == ("1 classes occur in a test part but not in its training part: mid",)


def test_bad_files_are_reported_once_and_left_out(clips, list_dataset, caplog):
    clips[0].path.write_bytes(b"not audio")
    clips[1].path.unlink()
    late = replace(clips[3], start=5.0)
    good = [clips[2], *clips[4:]]
    with caplog.at_level(logging.WARNING):
        task = ClipTask.from_dataset(
            "tones", list_dataset([*clips[:2], late, *good]), max_bad_fraction=0.5, unit_seconds=0.2
        )
    assert [clip.path for clip in task.bad] == [clips[0].path, clips[1].path, clips[3].path]
    assert all(bad.reason for bad in task.bad)
    assert [clip.path for clip in task.clips] == [clip.path for clip in good]
    assert caplog.text.count(str(clips[0].path)) == 1
    (fold,) = task.folds
    assert sorted([*fold.train, *fold.valid, *fold.test]) == list(range(len(good)))


def test_nan_samples_are_found_although_the_header_is_good(clips, list_dataset):
    soundfile.write(clips[0].path, np.full(800, np.nan, dtype=np.float32), 8000, subtype="FLOAT")
    task = ClipTask.from_dataset("tones", list_dataset(clips), max_bad_fraction=0.2)
    assert [bad.path for bad in task.bad] == [clips[0].path]
    assert "NaN" in task.bad[0].reason


def test_too_many_bad_files_stop_with_a_list(clips, list_dataset):
    clips[0].path.unlink()
    with pytest.raises(TrainingError, match=r"at most 5% .* 1 of 8 are.*\n.*0000\.wav: "):
        ClipTask.from_dataset("tones", list_dataset(clips))
    ClipTask.from_dataset("tones", list_dataset(clips), max_bad_fraction=1 / 8)


def test_what_the_lists_alone_say_of_a_task(clips, list_dataset):
    for seconds, fields, expected in ((None, {}, None), (0.1, {}, 0.1), (0.1, {"unit_seconds": 2.0}, 2.0)):
        dataset = list_dataset([replace(clip, duration=seconds) for clip in clips])
        task = tasks.listed_task("tones", dataset, SECTION.model_copy(update=fields))
        assert (task.unit_seconds, task.folds, len(task.clips)) == (expected, (), 8)


def test_nothing_readable_is_an_error_even_if_all_may_be_bad(list_dataset, tmp_path):
    listed = (("a", "train"), ("b", "train"), ("c", "test"))
    dataset = list_dataset([Clip(tmp_path / f"{n}.wav", labels=(n,), split=s) for n, s in listed])
    with pytest.raises(RecipeError, match=r"none of its files is there: .*a\.wav"):
        tasks.listed_task("tones", dataset, SECTION)  # before a training
    (tmp_path / "b.wav").write_bytes(b"no audio")
    assert tasks.listed_task("tones", dataset, SECTION).unit_seconds is None
    with pytest.raises(TrainingError, match="3 of 3"):
        ClipTask.from_dataset("tones", dataset, max_bad_fraction=1.0)


def test_features_are_computed_once_per_encoder_and_freed_with_it(clips, list_dataset, spectrum_encoder):
    task = ClipTask.from_dataset("tones", list_dataset(clips))
    first = task.features(spectrum_encoder)
    assert task.features(spectrum_encoder) is first
    assert spectrum_encoder.calls == 1
    other = type(spectrum_encoder)()
    assert task.features(other) is not first
    assert len(task._features) == 2
    del other
    gc.collect()
    assert len(task._features) == 1


def published(dataset, **fields):
    """The data set as a published task of two classes."""
    info = TaskInfo(
        "Tones", 0.25, 2, "accuracy", "train, valid, test", "Hertz, 1887", "TONES", "a.wav", "CC0"
    )
    dataset.task = replace(info, **fields)
    return dataset


def test_a_published_task_brings_its_unit_length(clips, list_dataset):
    dataset = published(list_dataset(clips))
    task = ClipTask.from_dataset("tones", dataset)
    assert (task.unit_seconds, task.warnings) == (0.25, ())
    assert ClipTask.from_dataset("tones", dataset, unit_seconds=0.1).unit_seconds == 0.1


def test_what_is_other_than_published_is_a_warning(clips, list_dataset):
    dataset = published(list_dataset(clips), num_classes=50, metric="mAP")
    dataset.missing = lambda: ["9 of 17 files do not exist"]
    assert ClipTask.from_dataset("tones", dataset).warnings == (
        "Tones has 50 classes (Hertz, 1887), here are 2",
        "Tones is scored by mAP (Hertz, 1887), here by accuracy",
        "9 of 17 files do not exist",
    )
