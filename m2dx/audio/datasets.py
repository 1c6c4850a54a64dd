"""The core's data sets: the audio files of a folder, and the clips of a CSV file."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from m2dx.components import LABEL_SEPARATOR, Clip, Dataset
from m2dx.errors import AudioError

AUDIO_EXTENSIONS = frozenset(
    "wav flac ogg oga opus mp3 aif aiff aifc au snd caf w64 rf64 sph nist "
    "paf voc wve avr sds svx iff ircam sf".split()
)
"""Extensions of the files that soundfile reads without being told the sampling rate."""
_UNREADABLE_EXTENSIONS = frozenset("m4a aac mp4 wma webm mka amr ape wv dsf ac3".split())
_MOST_PROBLEMS = 10  # of one file, in one error
_MOST_EXAMPLES = 5  # of files that do not exist


class FolderDataset(Dataset):
    """Every audio file of a folder, sorted by path.

    Hidden files (a name that starts with a dot) are left out. Raises `AudioError` when the folder is missing or
    has no audio files.

    Options:
        path: folder with the audio files
        extensions: extensions of the files to use, without the dot; default all that soundfile reads
        recursive: use the folders in the folder too
        label_from_folder: the label of a clip is the name of the folder that the file is in
    """

    name = "folder"

    def __init__(
        self,
        *,
        path: Path,
        extensions: list[str] | None = None,
        recursive: bool = True,
        label_from_folder: bool = False,
    ) -> None:
        self.path = path
        self.extensions = frozenset(e.lower().lstrip(".") for e in extensions or AUDIO_EXTENSIONS)
        self.recursive = recursive
        self.label_from_folder = label_from_folder

    def clips(self, split: str | None = None) -> list[Clip]:
        """All files; a folder has no splits, so that any split is empty."""
        return list(self._clips) if split is None else []

    def missing(self) -> list[str]:
        """Audio files of formats that soundfile cannot read, counted by extension."""
        unreadable = Counter(
            e for e in map(_extension, self._files) if e in _UNREADABLE_EXTENSIONS - self.extensions
        )
        return [
            f"{count} .{extension} files in {self.path}, which soundfile cannot read; convert them to FLAC"
            for extension, count in sorted(unreadable.items())
        ]

    @cached_property
    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            raise AudioError(f"`path` must be a folder, but {self.path} is {_what_it_is(self.path)}")
        return sorted(self._walk())

    @cached_property
    def _clips(self) -> list[Clip]:
        files = [file for file in self._files if _extension(file) in self.extensions]
        if not files:
            extensions = ", ".join(sorted(self.extensions))
            raise AudioError(f"no audio files ({extensions}) in {self.path}; check `path` and `extensions`")
        return [Clip(file, labels=(file.parent.name,) if self.label_from_folder else ()) for file in files]

    def _walk(self) -> Iterator[Path]:
        seen: set[str] = set()  # real paths: links to folders are followed, but in no circle
        for folder, folders, files in os.walk(self.path, followlinks=True):
            seen.add(os.path.realpath(folder))
            yield from (Path(folder, file) for file in files if not file.startswith("."))
            folders[:] = [
                f
                for f in sorted(folders)
                if self.recursive and not f.startswith(".") and os.path.realpath(Path(folder, f)) not in seen
            ]


class CsvDataset(Dataset):
    """The clips of a CSV file with a header (a .tsv file: separated by tabs), in the file's order.

    Columns: `path`, and optionally `start` and `duration` (seconds), `label` (several separated by `;`),
    `split`, `group`, and `fold` (the split, where there is no `split` column). Other columns are ignored. Listed
    files that do not exist are counted by `missing()` and stay in the list, so that they count as bad files when
    they are read. Raises `AudioError` with file and line for a list that cannot be used.

    Options:
        path: the CSV file
        root: folder that the paths in it are relative to; default the folder of the CSV file
        labels: read the column `label`; false leaves all clips unlabelled
        label_separator: text between the labels of one clip
    """

    name = "csv"

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
        return [clip for clip in self._clips if split is None or clip.split == split]

    def missing(self) -> list[str]:
        """One line where listed files do not exist: how many, and the first ones."""
        files = dict.fromkeys(clip.path for clip in self._clips)
        absent = [str(file) for file in files if not file.exists()]
        if not absent:
            return []
        return [
            f"{len(absent)} of {len(files)} files listed in {self.path} do not exist, e.g. "
            + ", ".join(absent[:_MOST_EXAMPLES])
        ]

    @cached_property
    def _clips(self) -> list[Clip]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                return self._parse(
                    csv.DictReader(file, delimiter="\t" if _extension(self.path) == "tsv" else ",")
                )
        except OSError as error:
            raise AudioError(f"cannot read the list {self.path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise AudioError(
                f"the list {self.path} must be UTF-8 text, but is not ({error.reason})"
            ) from error
        except csv.Error as error:
            raise AudioError(f"the list {self.path} is not valid CSV: {error}") from error

    def _parse(self, reader: csv.DictReader[str]) -> list[Clip]:
        columns = [column.strip() for column in reader.fieldnames or ()]
        reader.fieldnames = columns
        if "path" not in columns:
            raise AudioError(
                f"{self.path}:1: there must be a column `path`, but there are: {', '.join(columns)}"
            )
        clips: list[Clip] = []
        problems: list[str] = []
        for row in reader:
            try:
                clips.append(self._clip(row))
            except ValueError as error:
                problems.append(f"{self.path}:{reader.line_num}: {error}")
        if problems:
            more = len(problems) - _MOST_PROBLEMS
            shown = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
            raise AudioError("\n".join(shown))
        if not clips:
            raise AudioError(f"the list {self.path} has no clips; it must have a line for each")
        return clips

    def _clip(self, row: dict[str, str]) -> Clip:
        # DictReader files surplus fields under None, and gives None for those that a line lacks.
        if None in row:
            raise ValueError("more fields than columns; a path or label with a comma needs quotes")
        cells = {column: (value or "").strip() for column, value in row.items()}
        if not cells["path"]:
            raise ValueError("`path` must be given, but is empty")
        duration = _seconds(cells, "duration")
        if duration == 0.0:
            raise ValueError("`duration` must be more than 0 seconds, but is 0")
        labels = cells.get("label", "").split(self.label_separator) if self.labels else []
        return Clip(
            path=self.root / cells["path"],
            start=_seconds(cells, "start") or 0.0,
            duration=duration,
            labels=tuple(dict.fromkeys(label.strip() for label in labels if label.strip())),
            split=(cells["split"] if "split" in cells else cells.get("fold", "")) or None,
            group=cells.get("group") or None,
        )


def _seconds(cells: dict[str, str], column: str) -> float | None:
    text = cells.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"`{column}` must be a number of seconds, 0 or more, but is {text!r}")
    return value


def _extension(path: Path) -> str:
    return path.suffix.lower().lstrip(".")


def _what_it_is(path: Path) -> str:
    return "a file" if path.exists() else "missing"
