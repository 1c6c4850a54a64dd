"""Lists of clips: folders and CSV files."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from m2dx.contract.errors import AudioError, RecipeError
from m2dx.data.csv_list import CsvDataset
from m2dx.data.datasets import FolderDataset, ImageFolder
from m2dx.data.division import Holdout
from m2dx.data.reading import read_wav

SOUNDS = Path(__file__).parents[2] / "examples" / "sounds"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "cat/a.WAV", "cat/c.flac", "dog/d.ogg", ".hidden/x.wav", "cat/._c.flac"):
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(10), 16_000, format="WAV")
    for name in ("notes.txt", "cat/e.m4a", "dog/f.m4a"):
        (tmp_path / "sounds" / name).touch()
    return tmp_path / "sounds"


def names(dataset: FolderDataset) -> list[str]:
    return [clip.path.relative_to(dataset.path).as_posix() for clip in dataset.clips()]


def test_folder_is_sorted_and_hidden_files_are_left_out(folder: Path) -> None:
    assert names(FolderDataset(path=folder)) == ["b.wav", "cat/a.WAV", "cat/c.flac", "dog/d.ogg"]
    assert names(FolderDataset(path=folder, extensions=[".FLAC", "ogg"])) == ["cat/c.flac", "dog/d.ogg"]


def test_folder_labels(folder: Path) -> None:
    assert FolderDataset(path=folder).label_names() == ()
    dataset = FolderDataset(path=folder, label_from_folder=True)
    assert dataset.label_names() == ("cat", "dog", "sounds")
    assert dataset.clips()[1].labels == ("cat",)


@pytest.mark.skipif(os.name != "posix", reason="needs names of bytes")
def test_labels_and_groups_are_text_whatever_the_names_of_folders(tmp_path: Path) -> None:
    for name in (b"caf\xe9", "th\u00e9".encode()):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        folder.mkdir()
        (folder / "1.wav").touch()
        Image.new("RGB", (4, 4)).save(folder / "1.png")
    pattern = re.compile("(?P<label>[^/]+)/")
    for dataset in (
        FolderDataset(path=tmp_path, label_from_folder=True),
        FolderDataset(path=tmp_path, pattern=pattern),
        ImageFolder(path=tmp_path),
    ):
        assert dataset.label_names() == ("caf\\xe9", "th\u00e9")
        assert {clip.path.is_file() for clip in dataset.clips()} == {True}


def test_folder_names_what_soundfile_cannot_read(folder: Path) -> None:
    (line,) = FolderDataset(path=folder).missing()
    assert line.startswith("2 .m4a files")


@pytest.mark.parametrize("extension", ["wave", "bwf", "mp2", "mpga"])
def test_audio_of_less_usual_extensions_is_read(tmp_path: Path, extension: str) -> None:
    layer_2 = bytes([0xFF, 0xFD, 0x44, 0xC0]) + bytes(188)  # 1152 samples of silence at 48 kHz
    path = tmp_path / f"a.{extension}"
    if extension in ("wave", "bwf"):
        soundfile.write(path, np.zeros(11_520), 48_000, format="WAV")
    else:
        path.write_bytes(10 * layer_2)
    (clip,) = FolderDataset(path=tmp_path).clips()
    assert len(read_wav(clip.path)) == 11_520


@pytest.mark.parametrize("extension", ["m4b", "3gp", "3gpp", "3g2"])
def test_audio_that_cannot_be_read_is_told(tmp_path: Path, extension: str) -> None:
    (tmp_path / f"a.{extension}").touch()
    assert f"1 .{extension} files" in " ".join(FolderDataset(path=tmp_path).missing())


def test_folder_follows_links_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "linked.wav", np.zeros(10), 16_000)
    (tmp_path / "other").mkdir()
    (tmp_path / "linked.wav").rename(tmp_path / "other" / "z.wav")
    (folder / "dog" / "other").symlink_to(tmp_path / "other")
    (folder / "dog" / "circle").symlink_to(folder)
    assert names(FolderDataset(path=folder)) == [
        "b.wav",
        "cat/a.WAV",
        "cat/c.flac",
        "dog/d.ogg",
        "dog/other/z.wav",
    ]


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"must be a folder, but .* is missing"):
        FolderDataset(path=tmp_path / "none").clips()
    with pytest.raises(AudioError, match="no audio files"):
        FolderDataset(path=tmp_path).clips()


def test_the_lists_of_the_example() -> None:
    instrument = CsvDataset(path=SOUNDS / "instrument.csv")
    assert instrument.missing() == []
    assert len(instrument.clips()) == 743
    assert len(instrument.label_names()) == 11
    assert sum(len(instrument.clips(split)) for split in ("train", "valid", "test")) == 743


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A folder per class, in it a folder per patient with two recordings."""
    for label in ("MR", "MVP"):
        for patient in range(5):
            folder = tmp_path / "heart" / label / f"p{patient}"
            folder.mkdir(parents=True)
            for take in range(2):
                (folder / f"{label}_{patient}_{take}.wav").touch()
    return tmp_path / "heart"


def test_a_folder_per_class_is_divided_into_training_and_test(classes: Path) -> None:
    options = {"path": classes, "pattern": re.compile("(?P<label>[^/]+)/(?P<group>[^/]+)/")}
    dataset = FolderDataset(**options, split=Holdout(test=0.2))
    clips = dataset.clips()
    assert dataset.label_names() == ("MR", "MVP") and len(clips) == 20
    assert len(dataset.clips("train")) == 16
    assert Counter(clip.labels for clip in dataset.clips("test")) == {("MR",): 2, ("MVP",): 2}
    assert {clip.group for clip in clips} == {f"p{patient}" for patient in range(5)}
    assert not {c.group for c in dataset.clips("test")} & {c.group for c in dataset.clips("train")}
    assert FolderDataset(**options, split=Holdout(test=0.2)).clips() == clips
    folds = FolderDataset(**options, folds=5).clips()
    assert {clip.split for clip in folds} == set("12345") and len({(c.split, c.group) for c in folds}) == 5


@pytest.mark.parametrize(
    ("pattern", "first"),
    [
        (r"(?P<group>p\d)/", ("p0", "p0", None)),  # a folder's name
        (r"(?P<label>[A-Z]+)_(?P<group>\d)_", ("MR", "0", None)),  # the file's name
        (
            r"(?P<label>MR|MVP)|(?P<split>test)",
            ("MR", None, None),
        ),  # a group that does not take part says nothing
        (r"(?P<split>\d)\.wav", ("p0", None, "0")),
    ],
)
def test_patterns_read_label_group_and_split_of_paths(classes: Path, pattern: str, first: tuple) -> None:
    clip = FolderDataset(path=classes, label_from_folder=True, pattern=re.compile(pattern)).clips()[0]
    assert (*clip.labels, clip.group, clip.split) == first


def test_splits_of_paths_are_taken_for_what_their_names_mean(tmp_path: Path) -> None:
    for split in ("Training", "dev", "Test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.wav").touch()
    dataset = FolderDataset(path=tmp_path, pattern=re.compile("^(?P<split>[^/]+)/"))
    assert dataset.clips("Training") == dataset.clips("train") != []  # whatever is asked first
    assert [clip.split for clip in dataset.clips()] == ["test", "train", "valid"]


def test_a_folder_is_divided_alike_with_labels_and_without(classes: Path) -> None:
    own, other = (
        FolderDataset(path=classes, label_from_folder=labelled, split=Holdout(test=0.3))
        for labelled in (True, False)
    )
    assert [clip.split for clip in own.clips()] == [clip.split for clip in other.clips()]


@pytest.mark.parametrize("pattern", ["p[0-9]", "(p[0-9])", "(?P<patient>p[0-9])", "(?P<group>p)(?P<x>[0-9])"])
def test_patterns_without_the_three_names_are_refused(classes: Path, pattern: str) -> None:
    with pytest.raises(RecipeError, match="`pattern` must have named groups"):
        FolderDataset(path=classes, pattern=re.compile(pattern))


def test_files_that_do_not_fit_the_pattern_are_named(classes: Path) -> None:
    with pytest.raises(AudioError, match=r"does not fit 10 of 20, e\.g\. .*MVP_0_0\.wav"):
        FolderDataset(path=classes, pattern=re.compile("(?P<label>MR)_")).clips()


def test_without_groups_a_warning_says_what_that_means(
    classes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FolderDataset(path=classes, label_from_folder=True, split=Holdout(test=0.2)).clips()
    (line,) = caplog.messages
    assert line.startswith(f"{classes}: no groups are known, so that each file is one")


def test_lists_without_splits_are_divided(tmp_path: Path) -> None:
    rows = [f"{n}.wav,{'ab'[n % 2]},p{n // 4}" for n in range(40)]
    (tmp_path / "x.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    dataset = CsvDataset(path=tmp_path / "x.csv", split=Holdout(test=0.2))
    assert Counter(clip.labels for clip in dataset.clips("test")) == {("a",): 4, ("b",): 4}
    assert {clip.split for clip in CsvDataset(path=tmp_path / "x.csv", folds=2).clips()} == {"1", "2"}
    (tmp_path / "y.csv").write_text("path,label,subset\na.wav,x,Train\nb.wav,x,Test\n")
    with pytest.raises(
        RecipeError, match=r"y\.csv: `folds` is for lists without splits, but .*a\.wav has .* 'train'"
    ):
        CsvDataset(path=tmp_path / "y.csv", folds=2).clips()
