"""Lists of data sets: cells by column, and every problem with its line."""

from pathlib import Path

import pytest

import m2dx
from m2dx.contract.errors import AudioError
from m2dx.data.csv_list import CsvDataset


def write(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_by_column_without_the_space_around_them(tmp_path: Path) -> None:
    path = write(tmp_path, 'name, labels,extra\na,  "x,y" \n\n b ,z,w\n')
    rows = m2dx.read_table(path, dict, columns=("name", "labels"))
    assert rows == [
        {"name": "a", "labels": "x,y", "extra": ""},
        {"name": "b", "labels": "z", "extra": "w"},
    ]


def test_comments_a_given_header_and_rows_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "# made today\n# id, start\n-x, 1.5\n_y, 2\n")
    rows = m2dx.read_table(
        path, lambda row: None if row["id"] == "_y" else row["id"], header=("id", "start"), comment="#"
    )
    assert rows == ["-x"]


def test_tabs(tmp_path: Path) -> None:
    path = write(tmp_path, "0.1\t2.5\t0\t1\n")
    names = ("begin", "end", "crackle", "wheeze")
    assert m2dx.read_table(path, lambda row: row["end"], header=names, delimiter="\t") == ["2.5"]


def test_all_problems_come_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "# c\nvalue\n1\nx\n2,3\n" + "y\n" * 12)
    with pytest.raises(AudioError) as caught:
        m2dx.read_table(path, lambda row: int(row["value"]), comment="#")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}:4: invalid literal")
    assert lines[1].startswith(f"{path}:5: more fields than columns (2 for 1)")
    assert len(lines) == 11 and lines[-1] == "and 4 more"


def test_a_quote_that_is_not_closed_is_an_error_of_its_line_and_loses_no_other(tmp_path: Path) -> None:
    path = write(tmp_path, 'path,label\na,"dog\nb,5" pipe\nc,"cow\nd,x\n')
    with pytest.raises(AudioError) as caught:
        m2dx.read_table(path, dict)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:2", f"{path}:4"]
    assert "is a quote not closed?" in lines[0]


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"list.csv:1: no column may come twice, but there are: a, b, a"):
        m2dx.read_table(write(tmp_path, "a,b,a\n"), dict)
    with pytest.raises(AudioError, match=r"list.csv:1: no column may come twice"):
        CsvDataset(path=write(tmp_path, "path,label,label\na.wav,dog,cat\n")).clips()
    assert m2dx.read_table(write(tmp_path, "a,b,,\n1,2,,\n"), dict) == [{"a": "1", "b": "2", "": ""}]


def test_indented_comments_and_marks_inside_of_fields(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n  # no row\nx,# 1\n")
    assert m2dx.read_table(path, dict, comment="#") == [{"a": "x", "b": "# 1"}]


def test_a_column_that_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, "# c\nname,labels\n")
    with pytest.raises(
        AudioError, match=r"list.csv:2: there must be a column `path`, but there are: name, labels"
    ):
        m2dx.read_table(path, dict, columns=("path",), comment="#")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"cannot read the list .*: No such file"):
        m2dx.read_table(tmp_path / "none.csv", dict)
    latin = tmp_path / "latin.csv"
    latin.write_bytes("name\né\n".encode("latin-1"))
    with pytest.raises(AudioError, match="must be UTF-8 text"):
        m2dx.read_table(latin, dict)
