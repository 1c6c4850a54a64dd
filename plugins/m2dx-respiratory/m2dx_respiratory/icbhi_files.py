"""Reads the official files of ICBHI 2017: recording names, annotations, and the split."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import m2dx
from m2dx_respiratory.annotations import Annotation, Stretch, parse_entries, read_text, seconds

LABELS = ("normal", "crackle", "wheeze", "both")
NAME_PARTS = ("patient", "index", "location", "mode", "device")
SPLIT_FILE = "ICBHI_challenge_train_test.txt"


def name_parts(stem: str) -> tuple[str, ...] | None:
    """The five parts of a recording's name, e.g. 101, 1b1, Al, sc, Meditron; None: it is not such a name."""
    parts = tuple(stem.split("_"))
    return parts if len(parts) == len(NAME_PARTS) and all(parts) and parts[0].isdecimal() else None


def normal_form(name: str) -> str:
    """The name in one Unicode form, as file systems keep different ones of the same letters."""
    return unicodedata.normalize("NFC", name)


def read_annotation(path: Path) -> Annotation:
    """The cycles of a file of lines `begin<TAB>end<TAB>crackle<TAB>wheeze`; with any problem there are none."""
    try:
        text = read_text(path)
    except ValueError as error:
        return Annotation((), (str(error),))
    lines = [(f"{path}:{n}", line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        return Annotation((), (f"{path}: there must be a line for each cycle, but there is none",))
    return parse_entries(lines, _cycle)


def _cycle(where: str, line: str) -> Stretch:
    fields = line.rstrip().split("\t")
    if len(fields) != 4:
        raise ValueError(
            "there must be 4 columns separated by tabs (begin, end, crackle, wheeze), "
            f"but there are {len(fields)}"
        )
    begin, end = seconds("begin", fields[0]), seconds("end", fields[1])
    if end <= begin:
        raise ValueError(f"`end` must be after `begin` ({begin:g} s), but is {end:g} s")
    crackle, wheeze = _flag("crackle", fields[2]), _flag("wheeze", fields[3])
    return Stretch(where, begin, end, LABELS[crackle + 2 * wheeze])


def _flag(column: str, text: str) -> int:
    if text.strip() not in ("0", "1"):
        raise ValueError(f"`{column}` must be 0 or 1, but is {text!r}")
    return int(text)


def read_split(path: Path) -> dict[str, str]:
    """Recording name -> "train" or "test", from lines `name<TAB>split`.

    Raises AudioError, with file and line, for a line that is not so, or a recording in both: no split could be trusted.
    """
    found: dict[str, str] = {}

    def parse(row: dict[str, str]) -> None:
        name, split = normal_form(row["name"]), row["split"]
        if split not in ("train", "test"):
            raise ValueError(f"the split of {name!r} must be train or test, after a tab, but is {split!r}")
        if found.setdefault(name, split) != split:
            raise ValueError(f"{name!r} must be in one split, but was listed in {found[name]} before")

    m2dx.read_table(path, parse, header=("name", "split"), delimiter="\t")
    if not found:
        raise m2dx.AudioError(f"the split file {path} must have a line for each recording, but is empty")
    return found


def match_names(stems: Collection[str], listed: Collection[str]) -> Mapping[str, str]:
    """The split file's name of each recording that it lists.

    A name that is not listed is matched by its first four parts (all but the device) where that is possible in one way
    only: one official recording, of patient 226, has another device in its name than in the split file.
    """
    same = {stem: stem for stem in stems if stem in listed}
    by_parts: dict[tuple[str, ...], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for names, side in ((stems, 0), (listed, 1)):
        for name in names:
            parts = name_parts(name)
            if parts is not None and name not in same:
                by_parts[parts[:4]][side].append(name)
    renamed = {ours[0]: theirs[0] for ours, theirs in by_parts.values() if len(ours) == len(theirs) == 1}
    return same | renamed
