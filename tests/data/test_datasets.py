"""Lists of clips: folders and CSV files."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.data.datasets import CsvDataset, FolderDataset

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


def csv(tmp_path: Path, text: str, name: str = "list.csv") -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_csv_columns(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "\ufeffpath, start,duration,label,split,group,fold,year\n"
        "a.wav,1.5,2,dog; cat;dog,train,p1,3,1999\n"
        '"b,c.wav",,,,,,4,\n'
        "/d.wav,0,,cat,test,,5,\n",
    )
    assert CsvDataset(path=path).clips() == [
        Clip(tmp_path / "a.wav", 1.5, 2.0, ("dog", "cat"), "train", "p1"),
        Clip(tmp_path / "b,c.wav"),
        Clip(Path("/d.wav"), labels=("cat",), split="test"),
    ]
    assert [clip.path.name for clip in CsvDataset(path=path).clips("test")] == ["d.wav"]
    assert CsvDataset(path=path).label_names() == ("cat", "dog")
    assert CsvDataset(path=path, labels=False).label_names() == ()
    assert CsvDataset(path=path, label_separator=",").label_names() == ("cat", "dog; cat;dog")
    assert CsvDataset(path=path, root=Path("/data")).clips()[0].path == Path("/data/a.wav")


def test_fold_is_the_split_where_there_is_none(tmp_path: Path) -> None:
    path = csv(tmp_path, "path,fold\na.wav,1\nb.wav,2\n")
    assert [clip.path.name for clip in CsvDataset(path=path).clips("2")] == ["b.wav"]


def test_tsv(tmp_path: Path) -> None:
    path = csv(tmp_path, "path\tlabel\na,b.wav\tdog\n", "list.tsv")
    assert CsvDataset(path=path).clips() == [Clip(tmp_path / "a,b.wav", labels=("dog",))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.wav,x\n", r":1: there must be a column `path`, but there are: file, label"),
        ("", r":1: there must be a column `path`"),
        ("path\n", "has no clips"),
        ("path,start\na.wav,soon\n", r":2: `start` must be a number of seconds, 0 or more, but is 'soon'"),
        ("path,start\na.wav,0\nb.wav,-1\n", r":3: `start` .* but is '-1'"),
        ("path,duration\na.wav,nan\n", r":2: `duration` .* but is 'nan'"),
        ("path,duration\na.wav,0\n", r":2: `duration` must be more than 0"),
        ("path,label\n,x\n", r":2: `path` must be given"),
        ("path,label\na,b.wav,x\n", r":2: more fields than columns"),
    ],
)
def test_csv_errors_name_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    path = csv(tmp_path, text)
    with pytest.raises(AudioError, match=message) as caught:
        CsvDataset(path=path).clips()
    assert str(path) in str(caught.value)


def test_csv_reports_its_problems_together(tmp_path: Path) -> None:
    path = csv(tmp_path, "path,start\n" + "a.wav,x\n" * 30)
    with pytest.raises(AudioError, match=re.escape("and 20 more")) as caught:
        CsvDataset(path=path).clips()
    assert str(caught.value).count("`start`") == 10


def test_csv_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="No such file"):
        CsvDataset(path=tmp_path / "none.csv").clips()
    (tmp_path / "latin.csv").write_bytes("path\ncafé.wav\n".encode("latin-1"))
    with pytest.raises(AudioError, match="UTF-8"):
        CsvDataset(path=tmp_path / "latin.csv").clips()


def test_files_that_do_not_exist_are_counted_and_stay_listed(tmp_path: Path) -> None:
    path = csv(tmp_path, "path\nlist.csv\nlist.csv\n" + "".join(f"{i}.wav\n{i}.wav\n" for i in range(7)))
    dataset = CsvDataset(path=path)
    named = ", ".join(str(tmp_path / f"{i}.wav") for i in range(5))
    assert dataset.missing() == [f"7 of 8 files listed in {path} do not exist, e.g. {named}"]
    assert len(dataset.clips()) == 16


def test_the_lists_of_the_example() -> None:
    instrument = CsvDataset(path=SOUNDS / "instrument.csv")
    assert instrument.missing() == []
    assert len(instrument.clips()) == 743
    assert len(instrument.label_names()) == 11
    assert sum(len(instrument.clips(split)) for split in ("train", "valid", "test")) == 743
