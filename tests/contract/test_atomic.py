"""Files that a kill or a full disk cannot cut."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from m2dx.contract.atomic import replace_file, replace_files, replace_json, replace_text


def cut(file: BinaryIO) -> None:
    file.write(b"new, but")
    raise KeyboardInterrupt


def test_the_old_content_stays_where_a_writer_does_not_end(tmp_path: Path) -> None:
    replace_text(tmp_path / "folder" / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "folder" / "a.txt", cut)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.txt"]
    assert (tmp_path / "folder" / "a.txt").read_text() == "old"


@pytest.mark.parametrize("umask, rights", [(0o022, 0o644), (0o007, 0o660)])
def test_rights_follow_the_umask(tmp_path: Path, umask: int, rights: int) -> None:
    before = os.umask(umask)
    try:
        replace_json(tmp_path / "a.json", {"b": [1, None]})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == rights
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None]}


def test_a_shared_file_is_written_aside_under_a_name_of_the_process(tmp_path: Path) -> None:
    names: list[str] = []
    for shared in (False, True):
        replace_file(tmp_path / "a", lambda file: names.append(Path(file.name).name), shared=shared)
    assert names == [".a.partial", f".a.{os.getpid()}.partial"]


def test_the_last_of_several_files_is_there_with_all_others_only(tmp_path: Path) -> None:
    def both(first: bytes) -> dict[str, object]:
        return {"a": lambda file: file.write(first), "b": lambda file: file.write(b"b of " + first)}

    (tmp_path / "note").write_text("mine")
    replace_files(tmp_path, both(b"1"))
    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            replace_files(tmp_path, {**both(b"2"), name: cut})
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
            "a": b"1",
            "b": b"b of 1",
            "note": b"mine",
        }
    replace_files(tmp_path, both(b"2"))
    assert [(tmp_path / name).read_bytes() for name in ("a", "b", "note")] == [b"2", b"b of 2", b"mine"]
