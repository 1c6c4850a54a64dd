from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m2dx.contract.components import Clip
from m2dx.contract.errors import RecipeError
from m2dx.evaluation.splits import divide, hold_out, inner_folds, shared_groups


def listed(*splits, groups=None):
    groups = groups or [None] * len(splits)
    return [
        Clip(Path(f"{n}.wav"), split=s, group=g) for n, (s, g) in enumerate(zip(splits, groups, strict=True))
    ]


def one_hot(*classes):
    return np.eye(max(classes) + 1, dtype=np.float32)[list(classes)]


def test_given_splits_are_one_division():
    (fold,) = divide(listed("train", "test", "valid", "train"), one_hot(0, 1, 0, 1))
    assert (fold.name, fold.train.tolist(), fold.valid.tolist(), fold.test.tolist()) == (
        "test",
        [0, 3],
        [2],
        [1],
    )


@pytest.mark.parametrize(
    ("valid", "fitted"),
    [
        (Clip(Path("v.wav"), split="valid"), [0, 2]),
        (Clip(Path("v.wav"), split="valid", group="ann"), [0]),  # of a group that is tested
        (Clip(Path("v.wav"), split="valid", group="bob"), [0, 2]),  # of one that is trained on
        (Clip(Path("x/../1.wav"), 0.5, 1.0, split="valid"), [0]),  # a part of a test clip
        (Clip(Path("1.wav"), 2.0, 1.0, split="valid"), [0, 2]),  # another part of its file
    ],
)
def test_nothing_is_fitted_to_what_the_validation_part_shares_with_the_test(valid, fitted):
    clips = [
        Clip(Path("0.wav"), split="train", group="bob"),
        Clip(Path("1.wav"), 0.0, 2.0, split="test", group="ann"),
        valid,
    ]
    (fold,) = divide(clips, one_hot(0, 0, 1))
    assert (fold.valid.tolist(), fold.fitted.tolist()) == ([2], fitted)


def test_segments_of_one_long_file_are_compared_at_once():
    """A minute's segments that overlap by half, every tenth of another part."""
    times = np.arange(30_000)
    parts = ["test" if n % 10 == 0 else "valid" for n in times]
    clips = [Clip(Path("a.wav"), n / 2, 0.9, split=part) for n, part in zip(times, parts, strict=True)]
    (fold,) = divide([*clips, Clip(Path("b.wav"), split="train")], one_hot(*[0, 1] * 15_000, 0))
    assert {n % 10 for n in fold.only_chooses.tolist()} == {1, 9}
    assert len(fold.fitted) == 21_002


def test_each_fold_is_tested_once_and_a_tenth_of_all_others_validates():
    names = ["10"] * 20 + ["2"] * 20 + ["9"] * 20
    folds = divide(listed(*names), one_hot(*[0, 1] * 30))
    assert [fold.name for fold in folds] == ["2", "9", "10"]
    for fold in folds:
        others = [row for row, name in enumerate(names) if name != fold.name]
        assert fold.test.tolist() == [row for row, name in enumerate(names) if name == fold.name]
        assert sorted([*fold.train, *fold.valid]) == others
        assert sorted(row % 2 for row in fold.valid) == [0, 0, 1, 1]


def test_without_a_valid_split_a_stratified_tenth_is_held_out():
    classes = [0] * 60 + [1] * 30 + [2] * 10
    clips = listed(*["train"] * 100, "test")
    train, valid = hold_out(np.arange(100), clips, one_hot(*classes, 0))
    assert [sum(classes[row] == c for row in valid) for c in range(3)] == [6, 3, 1]
    assert sorted([*train, *valid]) == list(range(100))
    again = hold_out(np.arange(100), clips, one_hot(*classes, 0))
    assert valid.tolist() == again[1].tolist()


def test_held_out_groups_are_whole():
    groups = [f"speaker {n % 25}" for n in range(100)]
    train, valid = hold_out(np.arange(100), listed(*["train"] * 100, groups=groups), one_hot(*[0, 1] * 50))
    assert 4 <= len(valid) <= 16
    assert not {groups[row] for row in train} & {groups[row] for row in valid}


@pytest.mark.parametrize("files", [8, 1])
def test_segments_of_a_file_stay_together_where_there_are_several_files(files: int) -> None:
    clips = [Clip(Path(f"{n % files}.wav"), float(n), 1.0, split="train") for n in range(80)]
    train, valid = hold_out(np.arange(80), clips, one_hot(*[0, 1] * 40))
    of = [{clips[row].path for row in rows} for rows in (train, valid)]
    assert len(valid) and len(train) + len(valid) == 80
    assert bool(of[0] & of[1]) == (files == 1)


def test_a_few_clips_still_give_both_parts():
    train, valid = hold_out(np.arange(4), listed(*["train"] * 4), one_hot(0, 0, 1, 1))
    assert len(train) == 3 and len(valid) == 1


@pytest.mark.parametrize(
    ("labels", "groups", "valid"),
    [
        ("aaaabbbbcc", "1122334455", 1),  # c has one group, which is divided into files
        ("aaaabbbbc", "112233445", 2),  # and here one clip
        ("aabb", "1122", 1),  # each class has one
        ("abcdefghij" * 4, None, 4),  # classes too small for a tenth of each
        ("abcdefghij", None, 1),
    ],
)
def test_no_class_is_held_out_as_a_whole(labels, groups, valid):
    classes = sorted(set(labels))
    clips = listed(*["train"] * len(labels), groups=groups)
    clips = [replace(clip, labels=(label,)) for clip, label in zip(clips, labels, strict=True)]
    train, held = hold_out(np.arange(len(labels)), clips, one_hot(*map(classes.index, labels)))
    assert len(held) == valid and len(train) + len(held) == len(labels)
    if len(labels) > len(classes):
        assert {labels[row] for row in train} == set(labels)


def test_one_group_cannot_be_held_out():
    with pytest.raises(RecipeError, match="two groups or more"):
        hold_out(np.arange(3), listed(*["train"] * 3, groups=["a"] * 3), one_hot(0, 1, 0))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("train", "train"), "needs clips with `split` test"),
        (("test",), "needs clips with `split` train"),
        (("train", "test", "val"), "'val'"),
        (("Train", "Test", "Test2"), "has .Test., .Test2., .Train.; which is which"),
        (("1", "1"), "two folds or more, but every clip has '1'"),
        (("True", "False"), "must say which clips are train, valid and test"),
    ],
)
def test_unusable_splits_are_refused(splits, message):
    with pytest.raises(RecipeError, match=message):
        divide(listed(*splits), one_hot(*[0] * (len(splits) - 1), 1))


def test_shared_groups_and_repeated_clips_are_found():
    clips = listed("train", "test", "train", "train", groups=["ann", "ann", "bob", None])
    clips += [Clip(Path("3.wav"), split="valid")]
    assert shared_groups(clips) == {
        "group 'ann'": ("test", "train"),
        "the clip 3.wav at 0 s": ("train", "valid"),
    }


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ((0.0, 1.0), (1.0, 1.0), False),
        ((0.0, 1.0005), (1.0, 1.0), False),
        ((0.0, 1.0), (0.1, 1.0), True),
        ((0.1, 1.0), (0.0, None), True),
        ((0.0, 10.0), (4.0, 1.0), True),
    ],
)
@pytest.mark.parametrize("other", ["a.wav", "x/../a.wav", "link.wav", "ABSOLUTE"])
def test_segments_of_one_file_that_overlap_are_shared_however_it_is_written(
    first, second, shared, other, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "a.wav").touch()
    (tmp_path / "link.wav").symlink_to("a.wav")
    path = tmp_path / "a.wav" if other == "ABSOLUTE" else Path(other)
    clips = [
        Clip(Path("a.wav"), first[0], first[1], split="train"),
        Clip(Path("a.wav"), 20.0, 1.0, split="train"),
        Clip(path, second[0], second[1], split="test"),
    ]
    if second[1] is None:
        del clips[1]
    assert list(shared_groups(clips).values()) == ([("test", "train")] if shared else [])


@pytest.mark.parametrize(
    ("clips", "counts", "held_out"),
    [
        ("-a -a -a -b -b -b", ["ab", "ab", "ab"], "files"),
        ("-a -a -a -a -b -b", ["aa", "ab", "ab"], "files"),
        ("1a 1a 2a 3a 3a 4b 5b 6b", ["aab", "aab", "ab"], "groups"),
        ("1a 1b 2a 2b 3a 3b 3b", ["ab", "ab", "abb"], "groups"),
        ("1a 1a 1a 2b 2b 2b", ["ab", "ab", "ab"], "files"),  # nothing is learned of a held-out class
        ("1a 1b 1a 1b", ["a", "ab", "b"], "files"),
        ("1a 2a 3a 4b 4b 4b", ["ab", "ab", "ab"], "groups, and the files of 1 group with classes of its own"),
        ("1a 2a 3a 3b 3b", ["a", "a", "abb"], "groups"),  # 3 has clips of a class that others have
        ("1a 2b", ["a", "b"], "files"),
        ("-a", ["a"], "files"),
    ],
)
def test_inner_folds_by_hand(clips, counts, held_out):
    given = [
        Clip(f"{row}.wav", labels=(text[1],), group=None if text[0] == "-" else text[0])
        for row, text in enumerate(clips.split())
    ]
    parts, said = inner_folds(given)
    found = [
        "".join(sorted(c.labels[0] for c, of in zip(given, parts, strict=True) if of == part))
        for part in sorted(set(parts.tolist()))
    ]
    assert sorted(found) == counts and said == held_out
    if said == "groups":
        assert len({(clip.group, part) for clip, part in zip(given, parts.tolist(), strict=True)}) == len(
            {clip.group for clip in given}
        )
