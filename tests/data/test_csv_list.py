"""Lists of clips as people have them: columns, splits, labels, encodings."""

import logging
import os
import re
from pathlib import Path

import pytest

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.data.csv_list import CsvDataset
from m2dx.data.division import Holdout


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
    assert CsvDataset(path=path, root=Path("/data")).clips()[0].path == Path("/data/a.wav")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (True, ["dog", ""]),
        (False, ["", ""]),
        ("label", ["dog", ""]),
        ("class", ["seen", "heard"]),
        ("species", ["felis;canis", "felis"]),
        ("group", ["p1", "p2"]),
        ("path", ["a.wav", "b.wav"]),
        (
            "genus",
            "list.csv:1: there must be a column `genus`, which `labels` names, but there are: path, label",
        ),
        ("", "there must be a column ``, which `labels` names"),
    ],
)
def test_labels_are_of_the_column_that_is_named(
    labels: bool | str, expected: list[str] | str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(
        tmp_path, "path,label,class,species,group\na.wav,dog,seen,felis; canis,p1\nb.wav,,heard,felis,p2\n"
    )
    dataset = CsvDataset(path=path, labels=labels)
    if isinstance(expected, str):
        with pytest.raises(AudioError, match=re.escape(expected)):
            dataset.clips()
        return
    assert [";".join(clip.labels) for clip in dataset.clips()] == expected
    assert [clip.group for clip in dataset.clips()] == ["p1", "p2"] and not caplog.records


def test_a_name_as_it_is_goes_before_other_spellings(tmp_path: Path) -> None:
    dataset = CsvDataset(path=csv(tmp_path, "path,label,Label,LABEL\na.wav,dog,x,y\n"))
    assert dataset.label_names() == ("dog",)
    assert "ignores `Label`, `LABEL`;" in dataset.notes()[-1]


def test_fold_is_the_split_where_there_is_none(tmp_path: Path) -> None:
    path = csv(tmp_path, "path,fold\na.wav,1\nb.wav,2\n")
    assert [clip.path.name for clip in CsvDataset(path=path).clips("2")] == ["b.wav"]


def test_fold_is_the_split_where_that_column_is_empty(tmp_path: Path) -> None:
    path = csv(tmp_path, "path,split,fold\na.wav,,1\nb.wav,,2\n")
    assert [clip.split for clip in CsvDataset(path=path).clips()] == ["1", "2"]


@pytest.mark.parametrize(
    ("groups", "same", "told"),
    [
        (("Jos\u00e9", "Jose\u0301"), True, "1 groups have invisible or composed characters"),
        (("p\u200b1", " p1"), True, "1 groups have invisible or composed characters"),
        (("Ann", "ann"), False, "groups that differ in case only are groups of their own: 'Ann' and 'ann'"),
        (("NA", "p1"), False, "1 clips have the group 'NA', which is one of the groups"),
    ],
)
def test_groups_are_one_however_they_are_written(
    groups: tuple[str, str], same: bool, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path, "path,group\n" + "".join(f"{i}.wav,{group}\n" for i, group in enumerate(groups)))
    with caplog.at_level(logging.WARNING):
        one, other = CsvDataset(path=path).clips()
    assert (one.group == other.group) == same and told in caplog.text


@pytest.mark.parametrize("labels", [False, "path", "sex"])
def test_a_list_is_divided_alike_whatever_is_its_label(labels: bool | str, tmp_path: Path) -> None:
    rows = [f"{n}.wav,{'abc'[n % 3]},{'mf'[n % 7 == 0]}" for n in range(60)]
    path = csv(tmp_path, "\n".join(["path,label,sex", *rows]))
    own, other = (CsvDataset(path=path, labels=by, split=Holdout(test=0.2)) for by in (True, labels))
    assert [clip.path for clip in other.clips("test")] == [clip.path for clip in own.clips("test")] != []


def test_tsv(tmp_path: Path) -> None:
    path = csv(tmp_path, "path\tlabel\na,b.wav\tdog\n", "list.tsv")
    assert CsvDataset(path=path).clips() == [Clip(tmp_path / "a,b.wav", labels=("dog",))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,label\na.wav,x\n",
            r":1: there must be a column `path` .or file, .*, but there are: name, label; it may have: path",
        ),
        ("", "list.csv is empty; it must have a header"),
        ("path\n", "has no clips"),
        ("path,start\na.wav,soon\n", r":2: `start` must be a number of seconds, 0 or more, but is 'soon'"),
        ("path,start\na.wav,0\nb.wav,-1\n", r":3: `start` .* but is '-1'"),
        ("path,duration\na.wav,nan\n", r":2: `duration` .* but is 'nan'"),
        ("path,duration\na.wav,0\n", r":2: `duration` must be more than 0"),
        ("path,label\n,x\n", r":2: `path` must be given"),
        ("path,label\na,b.wav,x\n", r":2: more fields than columns .* with a comma needs quotes"),
        ("path;label;fold\na.wav;x;y;1\n", r":2: more fields than columns .* with a semicolon needs quotes"),
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
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(AudioError, match="Not a regular file"):
        CsvDataset(path=tmp_path / "pipe.csv").clips()


def test_files_that_do_not_exist_are_counted_and_stay_listed(tmp_path: Path) -> None:
    path = csv(tmp_path, "path\nlist.csv\nlist.csv\n" + "".join(f"{i}.wav\n{i}.wav\n" for i in range(7)))
    dataset = CsvDataset(path=path)
    named = ", ".join(str(tmp_path / f"{i}.wav") for i in range(5))
    assert dataset.missing() == [f"7 of 8 files listed in {path} do not exist, e.g. {named}"]
    assert len(dataset.clips()) == 8


@pytest.mark.parametrize(
    ("header", "row", "told"),
    [
        ("path,start,duration", "a.wav,1,2", False),
        ("path,start,end", "a.wav,1,3", False),
        ("path,onset,offset", "a.wav,1,3", True),
        ("filename,start_time,end_time", "a.wav,1,3", True),
        ("File,Begin Time,Stop", "a.wav,1,3", True),
        ("path,offset,duration", "a.wav,1,2", True),
        ("path,start,duration,end", "a.wav,1,2,3.01", False),
        ("path,start,duration,end", "a.wav,1,2,n/a", False),
        ("path,start,duration,end", "a.wav,1,,3", False),
        ("path,onset,offset,length", "a.wav,1,3,", True),
        ("path,start,Start,end", "a.wav,1,2,3", False),
        ("path,start,duration,offset", "a.wav,1,2,99", False),
        ("path;start;end", "a.wav;1;3", False),
        ("path;start;end", "a.wav;1,0;3,0\n;;", False),  # a spreadsheet's decimal commas and empty rows
        ("sep=;\npath;start;end", "a.wav;1;3", False),
        ("path,start,end", 'a.wav,1,3\n"","",""\n\u00a0\n\f', False),  # other rows without a cell
        ("path,start,end,note", 'a.wav,1,3,"1,0"', False),
        ("path\tstart\tend", "a.wav\t1\t3", False),
    ],
)
def test_a_segment_is_understood_whatever_its_columns_are_called(
    header: str, row: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path, f"{header}\n{row}\n")
    with caplog.at_level(logging.WARNING):
        (clip,) = CsvDataset(path=path).clips()
    assert clip == Clip(tmp_path / "a.wav", start=1.0, duration=2.0)
    assert ("reads `" in caplog.text) == told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,offset\na.wav,3\n", ":1: the column `offset` may be where a clip starts or where it ends"),
        (
            "path,start,offset\na.wav,1,3\n",
            ":1: the column `offset` may be where a clip starts or where it ends",
        ),
        ("path,start,duration,end\na.wav,3,,3\n", ":2: `end` must come after `start`, but is 3"),
        ("path,start,end\na.wav,3,3\n", ":2: `end` must come after `start`, but is 3"),
        ("path,start,duration\na.wav,1e308,1\n", ":2: `start` must be at most 10,000,000 seconds"),
        ("path,weight\na.wav,1e308\n", ":2: `weight` must be a number above 0, and at most 1e12"),
        ("path,start,end,length\na.wav,0,0.3,10\n", ":2: `end` must be `start` and `duration` together"),
        ("path\na\0b.wav\n", ":2: `path` must be a path, but has a NUL character"),
    ],
)
def test_what_is_unclear_or_absurd_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=re.escape(message)):
        CsvDataset(path=csv(tmp_path, text)).clips()


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Train", "Test"), ("train", "test")),
        (("TRAIN", "VALID", "TEST"), ("train", "valid", "test")),
        (("training", "validation", "testing"), ("train", "valid", "test")),
        (("train", "dev", "eval"), ("train", "valid", "test")),
        (("dev", "eval"), ("train", "test")),
        (("development", "test"), ("train", "test")),
        (("train", "valid", "test"), ("train", "valid", "test")),
        (("1", "2", "3"), ("1", "2", "3")),
        (("train", "test", "extra"), ("train", "test", "extra")),
    ],
)
def test_splits_are_taken_for_what_their_names_mean(
    names: tuple[str, ...], splits: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path, "path,split\n" + "".join(f"{i}.wav,{name}\n" for i, name in enumerate(names)))
    dataset = CsvDataset(path=path)
    with caplog.at_level(logging.WARNING):
        assert tuple(clip.split for clip in dataset.clips()) == splits
    assert ("takes the split" in caplog.text) == (names != splits)
    for name, split in zip(names, splits, strict=True):
        assert dataset.clips(name) == dataset.clips(split) != []


def test_a_line_per_label_is_a_clip_with_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = csv(tmp_path, "path,label\na.wav,dog\nb.wav,cat\na.wav,cat\nb.wav,cat\n")
    with caplog.at_level(logging.WARNING):
        assert [clip.labels for clip in CsvDataset(path=path).clips()] == [("dog", "cat"), ("cat",)]
    assert "1 line add a label to a clip" in caplog.text
    assert "1 line repeat a clip" in caplog.text


def test_labels_that_look_alike_are_told_or_made_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["caf\u00e9", "cafe\u0301", " caf\u00e9 ", "c\u200baf\u00e9", "Dog", "dog", "NA", "7"]
    path = csv(tmp_path, "path,label\n" + "".join(f"{i}.wav,{label}\n" for i, label in enumerate(labels)))
    with caplog.at_level(logging.WARNING):
        assert CsvDataset(path=path).label_names() == ("7", "Dog", "NA", "caf\u00e9", "dog")
    assert "2 labels have invisible or composed characters" in caplog.text
    assert "'Dog' and 'dog'" in caplog.text
    assert "1 clips have the label 'NA'" in caplog.text


@pytest.mark.parametrize(("encoding", "told"), [("utf-8", ""), ("utf-16", "utf-16"), ("cp1252", "cp1252")])
def test_encodings(encoding: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("path,label\na.wav,caf\u00e9\n".encode(encoding))
    with caplog.at_level(logging.WARNING):
        assert CsvDataset(path=path).label_names() == ("caf\u00e9",)
    assert ("read as" in caplog.text) == bool(told)
    assert told in caplog.text


def test_backslashes_are_slashes_where_the_file_is_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.wav").touch()
    with caplog.at_level(logging.WARNING):
        (clip,) = CsvDataset(path=csv(tmp_path, "path\nx\\a.wav\n")).clips()
    assert clip.path == tmp_path / "x" / "a.wav"
    assert "1 paths have backslashes" in caplog.text


def test_columns_that_are_ignored_are_noted(tmp_path: Path) -> None:
    path = csv(tmp_path, "path,year,label\na.wav,1999,x\n")
    (note,) = CsvDataset(path=path).notes()
    assert note.startswith(f"{path}: ignores `year`; it reads: path, start")


def test_names_that_no_disk_has_are_missing(tmp_path: Path) -> None:
    dataset = CsvDataset(path=csv(tmp_path, f"path\n{'x' * 300}.wav\n"))
    assert "1 of 1 files" in dataset.missing()[0]
