"""Lists of clips as people have them: what their columns, splits and labels are called, understood or refused."""

from __future__ import annotations

import logging
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from m2dx.contract.components import LABEL_SEPARATOR, Clip, Dataset
from m2dx.contract.errors import AudioError
from m2dx.contract.wording import counted
from m2dx.data.files import extension_of
from m2dx.data.packs import is_there
from m2dx.data.tables import Table

logger = logging.getLogger(__name__)

COLUMNS = ("path", "start", "duration", "end", "label", "split", "fold", "group", "weight")
SYNONYMS = {
    "path": "file filename file_name filepath file_path audio audio_path wav wav_path",
    "start": "start_time start_seconds start_s begin begin_time onset",
    "end": "end_time end_seconds end_s stop stop_time",
    "duration": "length duration_seconds duration_s",
    "label": "labels class category target",
    "split": "subset partition",
}
"""Column -> other names of it, taken where the column itself is not there."""
TRAIN, VALID, TEST = "train", "valid", "test"
SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), TRAIN),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), VALID),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), TEST),
}
"""Names of splits in lower case -> the split. Where no name means train, dev and development do."""
_LONGEST_SECONDS = 1e7
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060\ufeff\u00ad]")
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
        labels: read the column `label`; false leaves all clips unlabelled
        label_separator: text between the labels of one clip
    """

    name = "csv"
    media = None

    def __init__(
        self,
        *,
        path: Path,
        root: Path | None = None,
        labels: bool = True,
        label_separator: str = LABEL_SEPARATOR,
    ) -> None:
        self.path = path
        self.root = path.parent if root is None else root
        self.labels = labels
        self.label_separator = label_separator

    def clips(self, split: str | None = None) -> list[Clip]:
        """Clips of one split (or fold), or all of them."""
        wanted = self._list.splits.get(split or "", split)
        return [clip for clip in self._list.clips if split is None or clip.split == wanted]

    def missing(self) -> list[str]:
        """One line where listed files do not exist: how many, and the first ones."""
        files = dict.fromkeys(clip.path for clip in self._list.clips)
        absent = [str(file) for file in files if not is_there(file)]
        if not absent:
            return []
        return [
            f"{len(absent)} of {len(files)} files listed in {self.path} do not exist, e.g. "
            + ", ".join(absent[:_MOST_EXAMPLES])
        ]

    def notes(self) -> list[str]:
        """What is ignored, and what is taken for something else, a line each."""
        return [*self._list.warnings, *self._list.ignored]

    @cached_property
    def _list(self) -> _ClipList:
        table = Table.read(self.path, delimiter="\t" if extension_of(self.path) == "tsv" else None)
        columns = _columns_of(table.names, place=table.place)
        reader = _RowReader(self.root, columns, self.labels, self.label_separator)
        clips = table.rows(reader.clip)
        if not clips:
            raise AudioError(f"the list {self.path} has no clips; it must have a line for each")
        clips, warnings = _joined(clips)
        clips, splits = _with_known_splits(clips)
        found = _ClipList(
            clips=clips,
            splits=splits,
            warnings=[
                f"{self.path}: {text}"
                for text in (
                    *table.notes,
                    *_column_notes(columns),
                    *reader.notes(),
                    *warnings,
                    *_split_notes(splits),
                    *_label_notes(clips),
                )
            ],
            ignored=_ignored(self.path, table.names, columns),
        )
        for warning in found.warnings:
            logger.warning("%s", warning)
        return found


@dataclass(frozen=True)
class _ClipList:
    clips: list[Clip]
    splits: Mapping[str, str]  # as it is written -> as it is taken
    warnings: list[str]
    ignored: list[str]


def _columns_of(names: Collection[str], *, place: str) -> dict[str, str]:
    """Column -> the name that it has in the header. Raises AudioError where there is no path, or a name is unclear."""
    by_name = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in names}
    found = {column: by_name[column] for column in COLUMNS if column in by_name}
    for column, others in SYNONYMS.items():
        other = next((by_name[other] for other in others.split() if other in by_name), None)
        if column not in found and other is not None:
            found[column] = other
    if "offset" in by_name:
        if "onset" in by_name and "end" not in found:
            found["end"] = by_name["offset"]
        elif "duration" in found and "start" not in found:
            found["start"] = by_name["offset"]
        elif "start" not in found:
            raise AudioError(
                f"{place}: the column `offset` may be where a clip starts or where it ends; name it `start` or `end`"
            )
    if "path" not in found:
        raise AudioError(
            f"{place}: there must be a column `path`, but there are: {', '.join(names)}; it may have: "
            f"{', '.join(COLUMNS)}"
        )
    if "duration" in found:
        found.pop("end", None)
    if "split" in found:
        found.pop("fold", None)
    return found


def _column_notes(columns: Mapping[str, str]) -> list[str]:
    renamed = [f"`{name}` as `{column}`" for column, name in columns.items() if name != column]
    return [f"reads {', '.join(renamed)}"] if renamed else []


def _ignored(path: Path, names: Collection[str], columns: Mapping[str, str]) -> list[str]:
    others = [f"`{name}`" for name in names if name not in columns.values()]
    return [f"{path}: ignores {', '.join(others)}; it reads: {', '.join(COLUMNS)}"] if others else []


class _RowReader:
    """Makes clips of rows, and counts what it changed in them."""

    def __init__(self, root: Path, columns: Mapping[str, str], labels: bool, separator: str) -> None:
        self.root, self.columns, self.labels, self.separator = root, columns, labels, separator
        self.changed: Counter[str] = Counter()

    def clip(self, row: Mapping[str, str]) -> Clip:
        cells = {column: row.get(name, "") for column, name in self.columns.items()}
        if not cells["path"]:
            raise ValueError("`path` must be given, but is empty")
        start, end = _seconds(cells, "start") or 0.0, _seconds(cells, "end")
        duration = _seconds(cells, "duration") if end is None else end - start
        if duration is not None and duration <= 0.0:
            what = (
                "`duration` must be more than 0 seconds" if end is None else "`end` must come after `start`"
            )
            raise ValueError(f"{what}, but is {cells['duration' if end is None else 'end']}")
        return Clip(
            path=self._path(cells["path"]),
            start=start,
            duration=None if duration is None else round(duration, 6),
            labels=self._labels(cells.get("label", "")),
            split=cells.get("split", cells.get("fold", "")) or None,
            group=cells.get("group") or None,
            weight=_weight(cells.get("weight", "")),
        )

    def _path(self, text: str) -> Path:
        if "\0" in text:
            raise ValueError("`path` must be a path, but has a NUL character")
        path = self.root / text
        if "\\" in text and os.sep != "\\" and not is_there(path):
            self.changed["paths have backslashes, read as slashes"] += 1
            return self.root / text.replace("\\", "/")
        return path

    def _labels(self, text: str) -> tuple[str, ...]:
        if not self.labels:
            return ()
        found: dict[str, None] = {}
        for label in text.split(self.separator):
            plain = unicodedata.normalize("NFC", _INVISIBLE.sub("", label)).strip()
            if plain != label.strip():
                self.changed["labels have invisible or composed characters, which are made plain"] += 1
            if plain:
                found[plain] = None
        return tuple(found)

    def notes(self) -> list[str]:
        return [f"{count} {what}" for what, count in self.changed.items()]


def _joined(clips: list[Clip]) -> tuple[list[Clip], list[str]]:
    """Lines of the same clip as one, with the labels of all."""
    found: dict[object, Clip] = {}
    several = repeated = 0
    for clip in clips:
        key = (clip.path, clip.start, clip.duration, clip.split, clip.group)
        before = found.get(key)
        if before is None:
            found[key] = clip
            continue
        labels = tuple(dict.fromkeys((*before.labels, *clip.labels)))
        several += labels != before.labels
        repeated += labels == before.labels
        found[key] = replace(before, labels=labels, weight=max(before.weight, clip.weight))
    notes = []
    if several:
        notes.append(
            f"{counted(several, 'line')} add a label to a clip that is listed before; they are joined"
        )
    if repeated:
        notes.append(f"{counted(repeated, 'line')} repeat a clip; each counts once")
    return list(found.values()), notes


def _with_known_splits(clips: list[Clip]) -> tuple[list[Clip], dict[str, str]]:
    """Clips with the splits train, valid and test, where all of their names mean these; and what they were called."""
    names = {clip.split for clip in clips if clip.split is not None}
    meant = {name: SPLITS[name.lower()] for name in names if name.lower() in SPLITS}
    if len(meant) < len(names) or not meant:
        return clips, {}
    if TRAIN not in meant.values():
        meant = {name: TRAIN if name.lower().startswith("dev") else split for name, split in meant.items()}
    changed = {name: split for name, split in meant.items() if name != split}
    if changed:
        clips = [clip if clip.split is None else replace(clip, split=meant[clip.split]) for clip in clips]
    return clips, changed


def _split_notes(splits: Mapping[str, str]) -> list[str]:
    taken = [f"{name!r} as {split}" for name, split in sorted(splits.items())]
    return [f"takes the split {', '.join(taken)}"] if taken else []


def _label_notes(clips: Collection[Clip]) -> list[str]:
    counts = Counter(label for clip in clips for label in clip.labels)
    notes = []
    by_case: dict[str, list[str]] = {}
    for label in sorted(counts):
        by_case.setdefault(label.casefold(), []).append(label)
    alike = [" and ".join(map(repr, labels)) for labels in by_case.values() if len(labels) > 1]
    if alike:
        more = f" and {len(alike) - _MOST_EXAMPLES} more" if len(alike) > _MOST_EXAMPLES else ""
        shown = ", ".join(alike[:_MOST_EXAMPLES])
        notes.append(f"labels that differ in case only are classes of their own: {shown}{more}")
    for label in sorted({"NA", "N/A", "nan", "NaN", "None", "null"} & set(counts)):
        notes.append(
            f"{counts[label]} clips have the label {label!r}, which is a class; leave the cell empty for none"
        )
    return notes


def _weight(text: str) -> float:
    try:
        value = float(text or 1.0)
    except ValueError:
        value = math.nan
    if not (0 < value <= 1e12):
        raise ValueError(f"`weight` must be a number above 0, and at most 1e12, but is {text!r}")
    return value


def _seconds(cells: Mapping[str, str], column: str) -> float | None:
    text = cells.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise ValueError(f"`{column}` must be a number of seconds, 0 or more, but is {text!r}")
    if value > _LONGEST_SECONDS:
        raise ValueError(f"`{column}` must be at most {_LONGEST_SECONDS:,.0f} seconds, but is {text!r}")
    return value
