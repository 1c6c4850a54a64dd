"""Reads the official files of SPRSound: its folders, recording names and JSON annotations."""

from __future__ import annotations

import json
from pathlib import Path

from m2dx_respiratory.annotations import Annotation, Stretch, parse_entries, read_text, seconds

TYPES = ("Normal", "Rhonchi", "Wheeze", "Stridor", "Coarse Crackle", "Fine Crackle", "Wheeze+Crackle")
BINARY = ("Normal", "Adventitious")
FOLDER = "BioCAS2022"
PARTS = {
    "train audio": ("train2022_wav", "train_wav"),
    "train annotations": ("train2022_json", "train_json"),
    "test audio": ("test2022_wav", "test_wav"),
    "inter annotations": ("test2022_json/inter_test_json", "test_json/inter_test_json"),
    "intra annotations": ("test2022_json/intra_test_json", "test_json/intra_test_json"),
}
"""Folders of the BioCAS 2022 part, with the names of the current release and of the first one."""


def part_folder(path: Path, part: str) -> Path | None:
    """The folder of a part of the data set, in `path` or its BioCAS2022; None: it is not there."""
    for top in (path, path / FOLDER):
        for name in PARTS[part]:
            if (top / name).is_dir():
                return top / name
    return None


def list_annotations(folder: Path) -> list[Path]:
    """The annotation files of a folder, sorted; hidden files are left out."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def patient_of(stem: str) -> str | None:
    """The patient of a recording's name (patient_age_gender_location_number); None: it is not such a name."""
    parts = stem.split("_")
    return parts[0] if len(parts) == 5 and all(parts) and parts[0].isdecimal() else None


def read_annotation(path: Path) -> Annotation:
    """The events of a JSON file (none in recordings of poor quality); with any problem there are none."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        return Annotation((), (f"{path}:{error.lineno}: not valid JSON: {error.msg}",))
    except ValueError as error:
        return Annotation((), (str(error),))
    listed = content.get("event_annotation") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        return Annotation((), (f"{path}: there must be a list `event_annotation`, but there is none",))
    entries = ((f"{path}: event_annotation[{number}]", entry) for number, entry in enumerate(listed))
    return parse_entries(entries, _event)


def _event(where: str, entry: object) -> Stretch:
    if not isinstance(entry, dict):
        raise ValueError(f"must be an object with start, end and type, but is {entry!r}")
    start, stop = entry.get("start"), entry.get("end")
    begin, end = seconds("start", start, unit="milliseconds"), seconds("end", stop, unit="milliseconds")
    if end <= begin:
        raise ValueError(f"`end` must be after `start` ({start} ms), but is {stop} ms")
    kind = entry.get("type")
    if kind not in TYPES:
        raise ValueError(f"`type` must be one of {', '.join(TYPES)}, but is {kind!r}")
    return Stretch(where, begin, end, kind)
