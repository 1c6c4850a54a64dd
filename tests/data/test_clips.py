"""Joining data sets: each clip once, with the labels of each set."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError, PluginError
from m2dx.data.clips import PackedStrings, call_dataset, join_sets, pack_clips
from m2dx.data.csv_list import CsvDataset
from m2dx.data.datasets import FolderDataset

SOUNDS = Path(__file__).parents[2] / "examples" / "sounds"


class Listed(Dataset):
    name = "listed"

    def __init__(self, *clips: Clip) -> None:
        self.listed = list(clips)

    def clips(self, split: str | None = None) -> list[Clip]:
        return [clip for clip in self.listed if split is None or clip.split == split]


def test_packed_strings() -> None:
    strings = ["a", "", "日本.wav", "caf\udce9.wav"]
    assert list(PackedStrings(strings)) == strings
    assert list(PackedStrings([])) == []


def test_clips_of_two_sets_merge_with_the_labels_of_each() -> None:
    plain = Listed(Clip(Path("/x/a")), Clip(Path("/x/b")), Clip(Path("/x/a"), start=1.0))
    kinds = Listed(
        Clip(Path("/x/y/../b"), labels=("dog",), split="train"),
        Clip(Path("/x/c"), labels=("cat",), split="train"),
        Clip(Path("/x/c"), labels=("cow",), split="train"),
        Clip(Path("/x/a"), labels=("dog",), split="test"),
    )
    clips = join_sets({"plain": (plain, None), "kinds": (kinds, "train")})
    assert [(str(clip.path), clip.start, clip.duration) for clip in clips] == [
        ("/x/a", 0.0, None),
        ("/x/b", 0.0, None),
        ("/x/a", 1.0, None),
        ("/x/c", 0.0, None),
    ]
    assert clips.num_files == 3
    assert clips.label_names == {"kinds": ("cat", "cow", "dog")}
    rows = [clips.labels(i)["kinds"] for i in range(4)]
    assert torch.isnan(rows[0]).all()  # its label is of another split
    assert rows[1].tolist() == [0, 0, 1]
    assert torch.isnan(rows[2]).all()
    assert rows[3].tolist() == [1, 1, 0]  # two lines of one clip


def test_lists_with_labels_of_any_bytes_have_a_fingerprint() -> None:
    found = {
        join_sets({"kinds": (Listed(Clip(Path("/x/a"), labels=(label,))), None)}).fingerprint
        for label in ("caf\udce9", "caf\udce8", "caf\u00e9")
    }
    assert len(found) == 3


def test_segments_of_a_recording_are_one_class(tmp_path: Path, make_wav: Callable[..., Path]) -> None:
    """By the paths of a list, beside other labels of the same clips, and by those of a folder."""
    lines = "path,start,duration,label\nb/1.wav,0,1,dog\nb/1.wav,1,1,cat\na.wav,0,1,\nb/1.wav,2,1,dog\n"
    (tmp_path / "list.csv").write_text(lines)
    recording, kind = (CsvDataset(path=tmp_path / "list.csv", labels=of) for of in ("path", "label"))
    clips = join_sets({"recording": (recording, None), "kind": (kind, None)})
    assert clips.label_names == {"recording": ("a.wav", "b/1.wav"), "kind": ("cat", "dog")}
    classes = [clips.labels(clip_id) for clip_id in range(len(clips))]
    assert [labels["recording"].tolist() for labels in classes] == [[0, 1], [0, 1], [1, 0], [0, 1]]
    assert [labels["kind"].isnan().any().item() for labels in classes] == [False, False, True, False]
    for name in ("a.wav", "b/1.wav"):
        make_wav(name)
    folder = FolderDataset(path=tmp_path, pattern=re.compile("(?P<label>.+)"))
    assert folder.label_names() == ("a.wav", "b/1.wav")


def test_durations_survive() -> None:
    clip = Clip(Path("a"), start=0.25, duration=1.5)
    assert list(pack_clips([clip])) == [clip]


def test_empty_split_names_the_splits_there_are() -> None:
    dataset = Listed(Clip(Path("a"), split="train"), Clip(Path("b"), split="test"))
    with pytest.raises(AudioError, match=r"split 'tset' of data set 'x' .* its splits are 'test', 'train'"):
        join_sets({"x": (dataset, "tset")})
    with pytest.raises(AudioError, match="data set 'x' must have clips"):
        join_sets({"x": (Listed(), None)})
    with pytest.raises(AudioError, match="it has no splits"):
        join_sets({"x": (Listed(Clip(Path("a"))), "train")})


def test_label_without_a_name() -> None:
    class Fixed(Listed):
        def label_names(self) -> tuple[str, ...]:
            return ("cat",)

    with pytest.raises(AudioError, match="label 'dog' of data set 'x'"):
        join_sets({"x": (Fixed(Clip(Path("a"), labels=("dog",))), None)})


def test_a_data_set_that_fails_is_named() -> None:
    class Failing(Listed):
        def clips(self, split: str | None = None) -> list[Clip]:
            if not self.listed:
                raise KeyError("of the plugin")
            return super().clips(split)

        def label_names(self) -> tuple[str, ...]:
            raise ZeroDivisionError("of the plugin")

    with pytest.raises(
        PluginError, match=r"data set 'x' \(component 'listed'\): clips\(\) failed: KeyError: 'of"
    ):
        join_sets({"y": (Listed(Clip(Path("a"))), None), "x": (Failing(), None)})
    with pytest.raises(
        PluginError, match=r"data set 'x' .* label_names\(\) failed: ZeroDivisionError: of the"
    ):
        join_sets({"x": (Failing(Clip(Path("a"), labels=("dog",))), None)})


@pytest.mark.parametrize(
    ("clip", "problem"),
    [
        ("a.wav", r"clips\(\) must give m2dx\.Clip objects, but gave 'a\.wav'"),
        (Clip("a.wav"), "a clip's path must be a pathlib.Path, but is 'a.wav'"),
        (Clip(Path("a"), labels="kick"), "labels must be a tuple of texts .* but a has 'kick'"),
        (
            Clip(Path("a"), labels=("",)),
            r"labels must be a tuple of texts that are not empty, but a has \(''",
        ),
        (Clip(Path("a"), labels=(1,)), r"labels must be a tuple of texts .* but a has \(1"),
        (Clip(Path("a"), start=float("nan")), "start must be seconds, 0 or more, .* but a has nan"),
        (Clip(Path("a"), duration=-1.0), "start must be seconds, .* than 0, but a has 0.0 and -1"),
        (Clip(Path("a"), start="1"), "start, duration and weight must be numbers, but a has '1'"),
        *[
            (Clip(Path("a"), weight=w), "the weight of a clip .* above 0, but a")
            for w in (0.0, -1.0, math.nan, math.inf)
        ],
        (Clip(Path("a"), group=3), "split and group must be texts, or None, but a has None and 3"),
    ],
)
def test_a_clip_that_is_none_is_refused(clip: Any, problem: str) -> None:
    with pytest.raises(PluginError, match=rf"data set 'x' \(component 'listed'\): {problem}"):
        join_sets({"x": (Listed(clip), None)})


def test_a_data_set_that_ignores_the_split_is_refused() -> None:
    class Whole(Listed):
        def clips(self, split: str | None = None) -> list[Clip]:
            return self.listed

    listed = Whole(Clip(Path("a"), split="train"), Clip(Path("b"), split="test"))
    assert len(join_sets({"x": (listed, None)})) == 2
    with pytest.raises(
        PluginError,
        match=r"clips\('train'\) must give clips of that split alone, but a is of 'train', and b of",
    ):
        join_sets({"x": (listed, "train")})


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("missing", "a text"),
        ("notes", "a text"),
        ("label_names", [1]),
        ("label_names", ["a", "a"]),
        ("notes", None),
    ],
)
def test_what_must_be_texts_is_refused_where_it_is_not(method: Any, given: Any) -> None:
    listed = type("Bad", (Listed,), {method: lambda self: given})(Clip(Path("a"), labels=("a",)))
    with pytest.raises(PluginError, match=rf"data set 'x' .*: {method}\(\) must give a list of texts"):
        call_dataset("x", listed, method)


def test_the_example_pool_contains_the_training_notes() -> None:
    pool, notes = CsvDataset(path=SOUNDS / "pool.csv"), CsvDataset(path=SOUNDS / "instrument.csv")
    clips = join_sets({"pool": (pool, None), "notes": (notes, "train")})
    assert len(clips) == len(pool.clips())
    labelled = sum(not clips.labels(i)["notes"].isnan().any() for i in range(len(clips)))
    assert labelled == len(notes.clips("train"))
    assert len(clips.label_names["notes"]) == 11


def test_a_clip_counts_as_often_as_the_largest_of_its_sets_says() -> None:
    pool = Listed(Clip(Path("a")), Clip(Path("b")))
    small = Listed(Clip(Path("b")), Clip(Path("c")))
    clips = join_sets({"pool": (pool, None), "small": (small, None)}, repeats={"small": 3})
    assert clips.draws.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert join_sets({"small": (small, None), "pool": (pool, None)}).draws.tolist() == [0, 1, 2]


class _Weighted(Dataset):
    name = "weighted"

    def __init__(self, **weights: float) -> None:
        self.weights = weights

    def clips(self, split: str | None = None) -> list[Clip]:
        return [Clip(Path(f"/{name}.wav"), weight=weight) for name, weight in self.weights.items()]


def test_weights_have_a_mean_of_one_in_each_set_and_a_shared_clip_takes_the_largest() -> None:
    """So that the scale of one set's weights does not crowd out another."""
    sets = {"one": (_Weighted(a=10.0, b=30.0), None), "other": (_Weighted(b=1.0, c=1.0, d=4.0), None)}
    clips = join_sets(sets, repeats={"other": 2})
    assert clips.weights.tolist() == [0.5, 1.5, 0.5, 2.0]
    assert clips.draws.tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert clips.draw_weights.tolist() == [0.5, 1.5, 1.5, 0.5, 0.5, 2.0, 2.0]
