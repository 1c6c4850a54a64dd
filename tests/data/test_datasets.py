"""Lists of clips: folders and CSV files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from m2dx.contract.errors import AudioError
from m2dx.data.csv_list import CsvDataset
from m2dx.data.datasets import FolderDataset

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
    assert names(FolderDataset(path=folder, recursive=False)) == ["b.wav"]
    assert names(FolderDataset(path=folder, extensions=[".FLAC", "ogg"])) == ["cat/c.flac", "dog/d.ogg"]


def test_folder_labels(folder: Path) -> None:
    assert FolderDataset(path=folder).label_names() == ()
    dataset = FolderDataset(path=folder, label_from_folder=True)
    assert dataset.label_names() == ("cat", "dog", "sounds")
    assert dataset.clips()[1].labels == ("cat",)


def test_folder_names_what_soundfile_cannot_read(folder: Path) -> None:
    (line,) = FolderDataset(path=folder).missing()
    assert line.startswith("2 .m4a files")


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
