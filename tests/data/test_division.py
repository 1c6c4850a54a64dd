"""Test parts and folds of lists that have none."""

import numpy as np
import pytest

from m2dx.contract.components import Clip
from m2dx.contract.errors import RecipeError
from m2dx.data.division import Holdout, deal, divided
from m2dx.evaluation.splits import shared_groups


def listed(*, classes, groups=None, files=None):
    return [
        Clip(
            f"{row if files is None else files[row]}.wav",
            labels=() if label is None else tuple(label.split(";")),
            group=None if groups is None else groups[row],
        )
        for row, label in enumerate(classes)
    ]


def counts(clips, parts, label):
    return [
        sum(label in clip.labels for clip, part in zip(clips, parts, strict=True) if part == n)
        for n in range(max(parts) + 1)
    ]


LISTS = {
    "even": listed(classes=["a", "b"] * 50),
    "rare class": listed(classes=["a"] * 90 + ["b"] * 10),
    "several labels": listed(classes=["a", "b", "a;b", "c"] * 25),
    "no labels": listed(classes=[None] * 100),
    "groups of 4": listed(classes=list("aabb") * 25, groups=[str(n // 4) for n in range(100)]),
    "groups of one class": listed(classes=["a"] * 50 + ["b"] * 50, groups=[str(n // 5) for n in range(100)]),
    "segments of files": listed(classes=["a", "b"] * 50, files=[n // 2 for n in range(100)]),
}


@pytest.mark.parametrize("clips", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.2] * 5, [1 / 3] * 3], ids=["test", "5 folds", "3 folds"])
def test_parts_have_their_share_of_each_class_and_never_part_of_a_group(clips, shares):
    parts = deal(clips, shares)
    assert (deal(clips, shares) == parts).all()
    of_unit = {}
    for clip, part in zip(clips, parts.tolist(), strict=True):
        assert of_unit.setdefault(clip.group or clip.path, part) == part
    largest = max(np.unique([clip.group or clip.path for clip in clips], return_counts=True)[1])
    for part, share in enumerate(shares):
        assert abs((parts == part).sum() - share * len(clips)) <= max(largest, 2)
        for label in {label for clip in clips for label in clip.labels}:
            total = sum(label in clip.labels for clip in clips)
            assert abs(counts(clips, parts, label)[part] - share * total) <= max(largest, 2)


@pytest.mark.parametrize("per_class", [1, 2, 3, 4, 8])
def test_small_classes_do_not_empty_the_test_part(per_class):
    """One clip a class are values or names."""
    parts = deal(listed(classes=[str(row // per_class) for row in range(120)]), [0.8, 0.2])
    assert parts.mean() == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (["a"] * 60 + ["b"] * 60, "the test part has 50.0 % of the clips, where 20.0 % are asked for"),
        ([None, *(str(row) for row in range(119))], "1 of 120 clips have no group"),
        ([None] * 120, "no groups are known"),
        ([str(row) for row in range(120)], None),
    ],
)
def test_what_a_division_could_not_do_is_told(groups, told, caplog):
    divided(listed(classes=list("ab") * 60, groups=groups), "x", split=Holdout(test=0.2), folds=None)
    assert told in caplog.text if told else not caplog.text


@pytest.mark.parametrize("sizes", [[60, 30, 10], [90, 9, 1], [40, 30, 30], [98, 1, 1]])
@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.95, 0.05], [1 / 3] * 3])
def test_no_part_is_empty_however_groups_are(sizes, shares):
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    parts = deal(listed(classes=["a", "b"] * 50, groups=groups), shares)
    assert set(parts.tolist()) == set(range(len(shares)))


def test_the_order_of_the_list_says_nothing():
    clips = listed(classes=["a"] * 100)
    assert np.flatnonzero(deal(clips, [0.8, 0.2])).mean() == pytest.approx(50, abs=15)


def test_by_file_leaves_groups_out():
    clips = listed(classes=["a"] * 20, groups=["one"] * 20)
    found = divided(clips, "x", split=Holdout(test=0.25, by="file"), folds=None)
    assert [clip.split for clip in found].count("test") == 5
    assert not shared_groups(found)  # else an evaluation takes what was asked for as a leak


def test_splits_and_folds_have_names():
    clips = listed(classes=["a", "b"] * 5)
    assert {clip.split for clip in divided(clips, "x", split=Holdout(test=0.2), folds=None)} == {
        "train",
        "test",
    }
    assert {clip.split for clip in divided(clips, "x", split=None, folds=3)} == {"1", "2", "3"}
    assert divided(clips, "x", split=None, folds=None) is clips


@pytest.mark.parametrize(
    ("clips", "options", "text"),
    [
        (
            [Clip("a.wav"), Clip("b.wav")],
            {"split": Holdout(test=0.2), "folds": 5},
            "`split` or `folds`, but both",
        ),
        (
            [Clip("a.wav", split="train")],
            {"split": Holdout(test=0.2)},
            "without splits, but a.wav has the split 'train'",
        ),
        ([Clip("a.wav"), Clip("b.wav", split="1")], {"folds": 2}, "`folds` is for lists without splits"),
        ([Clip("a.wav"), Clip("b.wav")], {"folds": 3}, "3 parts need as many groups .* have 2"),
        (
            [Clip("a.wav", group="p"), Clip("b.wav", group="p")],
            {"split": Holdout(test=0.5)},
            "2 parts .* have 1",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(clips, options, text):
    with pytest.raises(RecipeError, match=f"^heart: .*{text}"):
        divided(clips, "heart", **{"split": None, "folds": None, **options})
