"""Lists of clips as people have them: what their columns, splits and labels are called, understood or refused."""

from __future__ import annotations

import logging
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from m2dx.contract.components import LABEL_SEPARATOR, Clip, Dataset
from m2dx.contract.errors import AudioError
from m2dx.contract.wording import counted, some_of
from m2dx.data.containers import is_there
from m2dx.data.division import FoldCount, Holdout, divided
from m2dx.data.files import extension_of
from m2dx.data.tables import Table

logger = logging.getLogger(__name__)

SYNONYMS = {
    "path": "file filename file_name filepath file_path audio audio_path wav wav_path",
    "start": "start_time start_seconds start_s begin begin_time onset",
    "duration": "length duration_seconds duration_s",
    "end": "end_time end_seconds end_s stop stop_time",
    "label": "labels class category target",
    "split": "subset partition",
    "fold": "",
    "group": "",
    "weight": "",
}
"""Column -> other names of it, taken where the column itself is not there."""
SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
}
"""Names of splits in lower case -> the split. Where no name means train, dev and development do."""
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060\ufeff\u00ad]")
LONGEST_SECONDS, HEAVIEST = 1e7, 1e12  # of a clip in a list: largest start and duration, and weight
_ROUNDED_SECONDS = 0.02
_NUMBERS = ("start", "duration", "end", "weight")
_MOST_EXAMPLES = 5


class CsvDataset(Dataset):
    """The clips of a list with a header: text separated by commas, semicolons, tabs or bars, in the list's order.

    Columns: `path`, and optionally `start` and `duration` or `end` (seconds), `label` (several separated by `;`),
    `split`, `group`, `weight` (for weighted sampling; default 1), and `fold` (the split, where `split` is not there or
    empty). Common other names of them are understood (`filename`, `onset`, `offset`, `end_time`, `class`, `subset`,
    ...), and so are those of splits (`Train`, `training`, `val`, `dev`, `eval`, ...); a warning says so. Lines of one
    clip with several labels are joined. Other columns are ignored; `notes()` names them. Listed files that do not exist
    are counted by `missing()` and stay in the list, so that they count as bad files when they are read. Raises
    `AudioError` with file and line for a list that cannot be used.

    Options:
        path: the list
        root: folder that the paths in it are relative to; default the folder of the list
        labels: read the column `label`, or another one by its name; false leaves all clips unlabelled
        split: test part that is taken of a list without splits, whole groups and the same share of each class:
            {test: 0.2, by: group}
        folds: number of folds that such a list is divided into, instead of `split`
    """

    name = "csv"
    media = None

    def __init__(
        self,
        *,
        path: Path,
        root: Path | None = None,
        labels: bool | str = True,
        split: Holdout | None = None,
        folds: FoldCount | None = None,
    ) -> None:
        self.path = path
        self.root = path.parent if root is None else root
        self.labels = labels
        self.split, self.folds = split, folds

    def clips(self, split: str | None = None) -> list[Clip]:
        """Clips of one split (or fold), or all of them."""
        wanted = self._list.splits.get(split or "", split)
        return [clip for clip in self._list.clips if split is None or clip.split == wanted]

    def missing(self) -> list[str]:
        """One line where listed files do not exist: how many, and the first ones."""
        files = dict.fromkeys(clip.path for clip in self._list.clips)
        absent = [str(file) for file in files if not is_there(file)]
        some = ", ".join(absent[:_MOST_EXAMPLES])
        text = f"{len(absent)} of {len(files)} files listed in {self.path} do not exist, e.g. {some}"
        return [text] if absent else []

    def notes(self) -> list[str]:
        """What is ignored, and what is taken for something else, a line each."""
        return [f"{self.path}: {note}" for note in (*self._list.notes, *self._list.ignored)]

    @cached_property
    def _list(self) -> _List:
        found = _List(self)
        for note in found.notes:
            logger.warning("%s: %s", self.path, note)
        return found


class _List:
    """The clips of a list, and a note of all that is taken for something else."""

    def __init__(self, dataset: CsvDataset) -> None:
        self.dataset = dataset
        table = Table.read(dataset.path, delimiter="\t" if extension_of(dataset.path) == "tsv" else None)
        self.columns = _columns_of(table.names, dataset.labels, place=table.place)
        self.changed: Counter[str] = Counter()
        self._commas = table.delimiter != ","  # which numbers may have then
        self._folds: list[str | None] = []  # of each row
        self.clips = table.rows(self._clip)
        if not any(clip.split for clip in self.clips):  # no column of splits, or an empty one
            self.clips = [replace(c, split=fold) for c, fold in zip(self.clips, self._folds, strict=True)]
        if not self.clips:
            raise AudioError(f"the list {dataset.path} has no clips; it must have a line for each")
        others = [(name, use) for use, name in self.columns.items() if name not in (use, dataset.labels)]
        renamed = [f"`{name}` as `{column}`" for name, column in others]
        self.notes = [*table.notes, *([f"reads {', '.join(renamed)}"] if renamed else [])]
        self.notes += [f"{count} {what}" for what, count in self.changed.items()]
        self._join()
        self.clips, self.splits = take_splits(self.clips)
        if self.splits:
            self.notes.append(note_of_splits(self.splits))
        self._note_names("labels", "classes", [label for clip in self.clips for label in clip.labels])
        self._note_names("groups", "groups", [clip.group for clip in self.clips if clip.group])
        self._divide("label" in _columns_of(table.names, True, place=table.place))
        ignored = ", ".join(f"`{name}`" for name in table.names if name not in self.columns.values())
        self.ignored = [f"ignores {ignored}; it reads: {', '.join(SYNONYMS)}"] if ignored else []

    def _clip(self, row: Mapping[str, str]) -> Clip:
        cells = {column: row.get(name, "") for column, name in self.columns.items()}
        for column in _NUMBERS if self._commas else ():
            plain = cells.get(column, "").replace(",", ".", 1)
            if plain != cells.get(column, "") and not math.isnan(_number(plain)):
                cells[column] = plain
                self.changed["numbers have a decimal comma"] += 1
        if not cells["path"]:
            raise ValueError("`path` must be given, but is empty")
        start, duration = _seconds(cells, "start") or 0.0, _seconds(cells, "duration")
        if duration is not None:
            self._check_end(cells, start + duration)
        end = _seconds(cells, "end") if duration is None else None
        duration = duration if end is None else end - start
        if duration is not None and duration <= 0.0:
            if end is not None:
                raise ValueError(f"`end` must come after `start`, but is {cells['end']}")
            raise ValueError(f"`duration` must be more than 0 seconds, but is {cells['duration']}")
        weight = _number(cells.get("weight") or "1")
        if not 0 < weight <= HEAVIEST:
            given = cells["weight"]
            raise ValueError(f"`weight` must be a number above 0, and at most 1e12, but is {given!r}")
        self._folds.append(self._plain(cells.get("fold", ""), "folds") or None)
        return Clip(
            path=self._path(cells["path"]),
            start=start,
            duration=None if duration is None else round(duration, 6),
            labels=self._labels(cells.get("label", "")) if self.dataset.labels else (),
            split=self._plain(cells.get("split", ""), "splits") or None,
            group=self._plain(cells.get("group", ""), "groups") or None,
            weight=weight,
        )

    def _check_end(self, cells: Mapping[str, str], end: float) -> None:
        if abs(_number(cells.get("end", "")) - end) > _ROUNDED_SECONDS:
            raise ValueError(
                f"`end` must be `start` and `duration` together where all are given, but is {cells['end']}, not "
                f"{end:g}; if `{self.columns['duration']}` is the length of the file, leave that column out"
            )

    def _path(self, text: str) -> Path:
        if "\0" in text:
            raise ValueError("`path` must be a path, but has a NUL character")
        path = self.dataset.root / text
        if "\\" in text and os.sep != "\\" and not is_there(path):
            self.changed["paths have backslashes, read as slashes"] += 1
            return self.dataset.root / text.replace("\\", "/")
        return path

    def _labels(self, text: str) -> tuple[str, ...]:
        found = [self._plain(label, "labels") for label in text.split(LABEL_SEPARATOR)]
        return tuple(dict.fromkeys(filter(None, found)))

    def _plain(self, text: str, what: str) -> str:
        plain = plain_text(text)
        if plain != text.strip():
            self.changed[f"{what} have invisible or composed characters, which are made plain"] += 1
        return plain

    def _join(self) -> None:
        """Lines of the same clip become one, with the labels of all."""
        found: dict[object, Clip] = {}
        several = repeated = 0
        for clip in self.clips:
            key = (clip.path, clip.start, clip.duration, clip.split, clip.group)
            before = found.setdefault(key, clip)
            if before is not clip:
                labels = tuple(dict.fromkeys((*before.labels, *clip.labels)))
                several += labels != before.labels
                repeated += labels == before.labels
                found[key] = replace(before, labels=labels, weight=max(before.weight, clip.weight))
        self.clips = list(found.values())
        if several:
            lines = counted(several, "line")
            self.notes.append(f"{lines} add a label to a clip that is listed before; they are joined")
        if repeated:
            self.notes.append(f"{counted(repeated, 'line')} repeat a clip; each counts once")

    def _note_names(self, what: str, are: str, names: list[str]) -> None:
        counts = Counter(names)
        by_case: dict[str, list[str]] = {}
        for name in sorted(counts):
            by_case.setdefault(name.casefold(), []).append(name)
        alike = [" and ".join(map(repr, spelled)) for spelled in by_case.values() if len(spelled) > 1]
        if alike:
            self.notes.append(f"{what} that differ in case only are {are} of their own: {some_of(alike)}")
        for name in sorted({"NA", "N/A", "nan", "NaN", "None", "null"} & set(counts)):
            have = f"{counts[name]} clips have the {what.removesuffix('s')} {name!r}"
            self.notes.append(f"{have}, which is one of the {are}; leave the cell empty for none")

    def _divide(self, has_labels: bool) -> None:
        """Takes a test part or folds, by the list's own labels: other labels of the same list are divided alike."""
        own = self.dataset
        if own.labels is True or not has_labels or (own.split is None and own.folds is None):
            self.clips = divided(self.clips, str(own.path), split=own.split, folds=own.folds)
            return
        other = _List(CsvDataset(path=own.path, root=own.root, split=own.split, folds=own.folds)).clips
        self.clips = [
            replace(clip, split=known.split, group=known.group)
            for clip, known in zip(self.clips, other, strict=True)
        ]


def plain_text(text: str) -> str:
    """A name without space around it, invisible characters, and the two ways to write an accent."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).strip()


def take_splits(clips: list[Clip]) -> tuple[list[Clip], dict[str, str]]:
    """The clips with splits train, valid and test where all names mean these, and what each name is taken for."""
    names = {clip.split for clip in clips if clip.split is not None}
    meant = {name: SPLITS.get(name.lower()) for name in names}
    if "train" not in meant.values():
        meant |= {name: "train" for name in names if name.lower() in ("dev", "development")}
    if None in meant.values():
        return clips, {}
    taken = {name: split for name, split in meant.items() if split and name != split}
    return [replace(clip, split=taken.get(clip.split or "", clip.split)) for clip in clips], taken


def note_of_splits(taken: Mapping[str, str]) -> str:
    """What `take_splits` has taken names for, in words."""
    return f"takes the split {', '.join(f'{name!r} as {split}' for name, split in sorted(taken.items()))}"


def _columns_of(names: Collection[str], labels: bool | str, *, place: str) -> dict[str, str]:
    """Column -> the name that it has in the header. Raises AudioError where there is no path, or a name is unclear."""
    there = f"but there are: {', '.join(names)}"
    by_name = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in names}
    by_name |= {name: name for name in names}  # a name as it is goes before other spellings
    found = {}
    for column, others in SYNONYMS.items():
        name = next((by_name[name] for name in (column, *others.split()) if name in by_name), None)
        if name is not None:
            found[column] = name
    if "offset" in by_name:
        if "onset" in by_name and "end" not in found:
            found["end"] = by_name["offset"]
        elif "duration" in found and "start" not in found:
            found["start"] = by_name["offset"]
        elif "start" not in found or not {"duration", "end"} & found.keys():
            raise AudioError(
                f"{place}: the column `offset` may be where a clip starts or where it ends, or its length; name it "
                "`start`, `end` or `duration`"
            )
    if "path" not in found:
        known, files = ", ".join(SYNONYMS), SYNONYMS["path"].split()
        raise AudioError(
            f"{place}: there must be a column `path` (or {files[0]}, {files[1]}, ...), {there}; it may have: {known}"
        )
    if isinstance(labels, str):
        if labels not in names:
            raise AudioError(f"{place}: there must be a column `{labels}`, which `labels` names, {there}")
        found["label"] = labels
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _seconds(cells: Mapping[str, str], column: str) -> float | None:
    text = cells.get(column, "")
    if not text:
        return None
    value = _number(text)
    if not value >= 0:
        raise ValueError(f"`{column}` must be a number of seconds, 0 or more, but is {text!r}")
    if value > LONGEST_SECONDS:
        raise ValueError(f"`{column}` must be at most {LONGEST_SECONDS:,.0f} seconds, but is {text!r}")
    return value
