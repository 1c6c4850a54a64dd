"""What commands are given to read: every kind of input becomes clips, or is refused in one line."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.data.inputs import clips_of_inputs


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of empty files: nothing of the audio is read."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.flac", "sub/c.wav", "sub/.hidden.wav", "sub/notes.md", "sub/d e.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def given(name: str | bytes, content: bytes | str) -> Path:
    path = Path(os.fsdecode(name))
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("inputs", "stdin", "expected"),
    [
        (["a.wav"], b"", ["a.wav"]),
        (["b.flac", "a.wav", "b.flac"], b"", ["b.flac", "a.wav"]),
        (["none.wav"], b"", ["none.wav"]),  # told when it is read
        (["sub"], b"", ["sub/c.wav", "sub/d e.mp3"]),
        (["sub/"], b"", ["sub/c.wav", "sub/d e.mp3"]),
        (["a.wav", "sub", "sub/c.wav"], b"", ["a.wav", "sub/c.wav", "sub/d e.mp3"]),
        (["-"], b"a.wav\nsub/d e.mp3\n", ["a.wav", "sub/d e.mp3"]),
        (["-"], b"a.wav\r\n\r\nb.flac", ["a.wav", "b.flac"]),
        (["-"], b"a.wav\0new\nline.wav\0", ["a.wav", "new\nline.wav"]),
        (["-"], b"caf\xe9.wav\n", [os.fsdecode(b"caf\xe9.wav")]),
        (["-", "a.wav"], b"", ["a.wav"]),
        (["list.txt"], b"", ["a.wav", "sub/c.wav"]),
        (["sub/list.txt"], b"", ["sub/c.wav"]),
        (["list.csv"], b"", ["a.wav", "sub/c.wav"]),
        (["list.tsv"], b"", ["b.flac"]),
        (["x" * 300], b"", ["x" * 300]),
    ],
)
def test_what_is_given_becomes_clips(
    here: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], stdin: bytes, expected: list[str]
) -> None:
    given("list.txt", "\ufeffa.wav\n\nsub/c.wav\n")
    given("sub/list.txt", "c.wav\n")
    given("list.csv", "filename,class\na.wav,x\nsub/c.wav,y\n")
    given("list.tsv", "path\tsplit\nb.flac\ttest\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    clips = clips_of_inputs([Path(name) for name in inputs])
    assert [os.path.relpath(clip.path) for clip in clips] == expected


def test_places_and_labels_of_a_list_are_kept(here: Path) -> None:
    listed = given("list.csv", "path,start,end,label\na.wav,1,2.5,x;y\na.wav,2.5,3,x\n")
    assert clips_of_inputs([listed]) == [
        Clip(Path("a.wav"), start=1.0, duration=1.5, labels=("x", "y")),
        Clip(Path("a.wav"), start=2.5, duration=0.5, labels=("x",)),
    ]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("empty.txt", "", "there must be an audio file in empty.txt"),
        ("bad.csv", "name,label\na.wav,x\n", "bad.csv:1: there must be a column `path`"),
        ("bad.csv", "path,start\na.wav,soon\n", "bad.csv:2: `start` must be a number of seconds"),
        ("none.csv", None, "cannot read the list none.csv"),
        ("none.txt", None, "the list none.txt cannot be read: No such file"),
        ("void", "folder", "no audio files in void"),
        ("pack", "pack", "the pack pack cannot be read: pack.json"),
        ("pipe.txt", "pipe", "the list pipe.txt cannot be read"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(here: Path, name: str, content: Any, text: str) -> None:
    if content == "pipe":
        os.mkfifo(name)
    elif content in ("folder", "pack"):
        Path(name).mkdir()
        if content == "pack":
            given("pack/pack.json", "[")
    elif content is not None:
        given(name, content)
    with pytest.raises(AudioError, match=r"\A[^\n]*\Z") as error:
        clips_of_inputs([Path(name)])
    assert text in str(error.value)


def test_files_of_formats_that_cannot_be_read_are_told(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    given("sub/e.m4a", b"")
    assert len(clips_of_inputs([Path("sub")])) == 2
    assert "1 .m4a files in sub, which soundfile cannot read" in caplog.text
