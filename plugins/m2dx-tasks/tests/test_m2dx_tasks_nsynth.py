"""NSynth's descriptions of notes, as two tasks, and what is said where they are not as they must be."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from m2dx_tasks.music import NSynth, NSynthPitch
from task_clips import as_rows, told

import m2dx


def note(**changes: object) -> dict[str, object]:
    description = {"pitch": 60, "instrument_str": "bass_synthetic_033", "instrument_family_str": "bass"}
    return {**description, **changes}


@pytest.fixture
def nsynth(tmp_path: Path) -> Any:
    """Writes the examples.json of a split; the others have one note."""

    def write(split: str, content: object) -> Path:
        path = tmp_path / f"nsynth-{split}" / "examples.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    for split in ("train", "valid", "test"):
        write(split, {f"bass_synthetic_033-060-{split}": note()})
    return write


def test_nsynth_has_families_and_pitches(nsynth: Any, tmp_path: Path) -> None:
    nsynth("train", {"reed_1-020-050": note(pitch=20, instrument_str="reed_1", instrument_family_str="reed"),
                     "bass_2-108-050": note(pitch=108, instrument_str="bass_2")})  # fmt: skip
    family, pitch = NSynth(path=tmp_path), NSynthPitch(path=tmp_path)
    assert as_rows(family, tmp_path)[:2] == [
        ("nsynth-train/audio/reed_1-020-050.wav", ("reed",), "train", "reed_1"),
        ("nsynth-train/audio/bass_2-108-050.wav", ("bass",), "train", "bass_2"),
    ]
    assert [(clip.path.stem, *clip.labels, clip.split) for clip in pitch.clips()] == [
        ("bass_2-108-050", "108", "train"),
        ("bass_synthetic_033-060-valid", "60", "valid"),
        ("bass_synthetic_033-060-test", "60", "test"),
    ]
    assert pitch.label_names() == ("60", "108")
    assert told(pitch)[0].startswith("3 of 3 files do not exist")


@pytest.mark.parametrize(
    ("description", "text"),
    [
        (note(pitch="60"), "`pitch` must be a MIDI number, 0 to 127, but is '60'"),
        (note(pitch=128), "`pitch` must be a MIDI number, 0 to 127, but is 128"),
        (note(instrument_str=None), "`instrument_str` must be a text, but is None"),
        (note(instrument_family_str=0), "`instrument_family_str` must be a text, but is 0"),
        ([], "must be an object, but is []"),
    ],
)
def test_a_wrong_description_is_told_with_file_and_note(
    nsynth: Any, tmp_path: Path, description: object, text: str
) -> None:
    path = nsynth("valid", {"a-060-050": note(), "b-060-050": description})
    with pytest.raises(m2dx.AudioError, match=f"^{re.escape(f'{path}: b-060-050: {text}')}$"):
        NSynth(path=tmp_path).clips()


def test_broken_descriptions_are_told_with_the_line(nsynth: Any, tmp_path: Path) -> None:
    path = nsynth("test", '{"a": 1,\n "b" 2}')
    with pytest.raises(m2dx.AudioError, match=f"^{re.escape(str(path))}:2: not valid JSON: "):
        NSynth(path=tmp_path).clips()
    nsynth("test", [])
    with pytest.raises(m2dx.AudioError, match=f"^{re.escape(str(path))}:1: must be an object"):
        NSynth(path=tmp_path).clips()
    path.write_bytes(b"\xff")
    with pytest.raises(m2dx.AudioError, match="must be UTF-8 text"):
        NSynth(path=tmp_path).clips()


def test_only_the_first_wrong_descriptions_are_shown(nsynth: Any, tmp_path: Path) -> None:
    nsynth("test", {f"n{number}": note(pitch=-1) for number in range(8)})
    with pytest.raises(m2dx.AudioError) as error:
        NSynth(path=tmp_path).clips()
    lines = str(error.value).splitlines()
    assert len(lines) == 6 and lines[-1] == "and 3 more"
