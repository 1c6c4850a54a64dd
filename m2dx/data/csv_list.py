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
from m2dx.contract.wording import counted
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
_MOST_EXAMPLES = 5


class CsvDataset(Dataset):
    """The clips of a list with a header: text separated by commas, semicolons, tabs or bars, in the list's order.

    Columns: `path`, and optionally `start` and `duration` or `end` (seconds), `label` (several separated by `;`),
    `split`, `group`, `weight` (for weighted sampling; default 1), and `fold` (the split, where there is no `split`
    column). Common other names of them are understood (`filename`, `onset`, `offset`, `end_time`, `class`, `subset`,
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
        self.splits: dict[str, str] = {}
        """Names of splits as they are written -> as they are taken."""
        self.clips = table.rows(self._clip)
        if not self.clips:
            raise AudioError(f"the list {dataset.path} has no clips; it must have a line for each")
        others = [(name, use) for use, name in self.columns.items() if name not in (use, dataset.labels)]
        renamed = [f"`{name}` as `{column}`" for name, column in others]
        self.notes = [*table.notes, *([f"reads {', '.join(renamed)}"] if renamed else [])]
        self.notes += [f"{count} {what}" for what, count in self.changed.items()]
        self._join()
        self._take_splits()
        self._note_labels()
        self.clips = divided(self.clips, str(dataset.path), split=dataset.split, folds=dataset.folds)
        ignored = ", ".join(f"`{name}`" for name in table.names if name not in self.columns.values())
        self.ignored = [f"ignores {ignored}; it reads: {', '.join(SYNONYMS)}"] if ignored else []

    def _clip(self, row: Mapping[str, str]) -> Clip:
        cells = {column: row.get(name, "") for column, name in self.columns.items()}
        if not cells["path"]:
            raise ValueError("`path` must be given, but is empty")
        start, duration = _seconds(cells, "start") or 0.0, _seconds(cells, "duration")
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
        return Clip(
            path=self._path(cells["path"]),
            start=start,
            duration=None if duration is None else round(duration, 6),
            labels=self._labels(cells.get("label", "")) if self.dataset.labels else (),
            split=cells.get("split", cells.get("fold", "")) or None,
            group=cells.get("group") or None,
            weight=weight,
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
        found = []
        for label in text.split(LABEL_SEPARATOR):
            plain = unicodedata.normalize("NFC", _INVISIBLE.sub("", label)).strip()
            if plain != label.strip():
                self.changed["labels have invisible or composed characters, which are made plain"] += 1
            found.append(plain)
        return tuple(dict.fromkeys(filter(None, found)))

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

    def _take_splits(self) -> None:
        """Names of splits become train, valid and test, where all of them mean these."""
        names = {clip.split for clip in self.clips if clip.split is not None}
        meant = {name: SPLITS.get(name.lower()) for name in names}
        if "train" not in meant.values():
            meant |= {name: "train" for name in names if name.lower() in ("dev", "development")}
        if None in meant.values():
            return
        self.splits = {name: split for name, split in meant.items() if split and name != split}
        if self.splits:
            self.clips = [replace(c, split=self.splits.get(c.split or "", c.split)) for c in self.clips]
            taken = [f"{name!r} as {split}" for name, split in sorted(self.splits.items())]
            self.notes.append(f"takes the split {', '.join(taken)}")

    def _note_labels(self) -> None:
        counts = Counter(label for clip in self.clips for label in clip.labels)
        by_case: dict[str, list[str]] = {}
        for label in sorted(counts):
            by_case.setdefault(label.casefold(), []).append(label)
        alike = [" and ".join(map(repr, labels)) for labels in by_case.values() if len(labels) > 1]
        if alike:
            more = f" and {len(alike) - _MOST_EXAMPLES} more" if len(alike) > _MOST_EXAMPLES else ""
            shown = ", ".join(alike[:_MOST_EXAMPLES])
            self.notes.append(f"labels that differ in case only are classes of their own: {shown}{more}")
        for label in sorted({"NA", "N/A", "nan", "NaN", "None", "null"} & set(counts)):
            self.notes.append(
                f"{counts[label]} clips have the label {label!r}, which is a class; leave the cell empty for none"
            )


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
        known = ", ".join(SYNONYMS)
        raise AudioError(f"{place}: there must be a column `path`, {there}; it may have: {known}")
    if isinstance(labels, str):
        if labels not in names:
            raise AudioError(f"{place}: there must be a column `{labels}`, which `labels` names, {there}")
        found["label"] = labels
    if "split" in found:
        found.pop("fold", None)
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
