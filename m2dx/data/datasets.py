"""The core's data sets: the audio files or the images of a folder, and the clips of a CSV file."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

from m2dx.contract.components import LABEL_SEPARATOR, Clip, Dataset
from m2dx.contract.errors import AudioError, ImageError
from m2dx.data.files import IMAGE_EXTENSIONS, AudioFiles, extension_of, list_audio
from m2dx.data.packs import is_there
from m2dx.data.tables import read_table

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
        self.extensions, self.recursive = extensions, recursive
        self.label_from_folder = label_from_folder

    def clips(self, split: str | None = None) -> list[Clip]:
        """All files; a folder has no splits, so that any split is empty."""
        return list(self._clips) if split is None else []

    def missing(self) -> list[str]:
        """Audio files of formats that soundfile cannot read, counted by extension."""
        return self._files.missing()

    @cached_property
    def _files(self) -> AudioFiles:
        return list_audio(self.path, extensions=self.extensions, recursive=self.recursive)

    @cached_property
    def _clips(self) -> list[Clip]:
        files = self._files.readable
        if not files:
            wanted = "" if self.extensions is None else f" ({', '.join(self.extensions)})"
            raise AudioError(f"no audio files{wanted} in {self.path}; check `path` and `extensions`")
        return [Clip(file, labels=(file.parent.name,) if self.label_from_folder else ()) for file in files]


class CsvDataset(Dataset):
    """The clips of a CSV file with a header (a .tsv file: separated by tabs), in the file's order.

    Columns: `path`, and optionally `start` and `duration` (seconds), `label` (several separated by `;`), `split`,
    `group`, `weight` (for weighted sampling; default 1), and `fold` (the split, where there is no `split` column).
    Other columns are ignored. Listed files that do not exist are counted by `missing()` and stay in the list, so that
    they count as bad files when they are read. Raises `AudioError` with file and line for a list that cannot be used.

    Options:
        path: the CSV file
        root: folder that the paths in it are relative to; default the folder of the CSV file
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
        return [clip for clip in self._clips if split is None or clip.split == split]

    def missing(self) -> list[str]:
        """One line where listed files do not exist: how many, and the first ones."""
        files = dict.fromkeys(clip.path for clip in self._clips)
        absent = [str(file) for file in files if not is_there(file)]
        if not absent:
            return []
        return [
            f"{len(absent)} of {len(files)} files listed in {self.path} do not exist, e.g. "
            + ", ".join(absent[:_MOST_EXAMPLES])
        ]

    @cached_property
    def _clips(self) -> list[Clip]:
        delimiter = "\t" if extension_of(self.path) == "tsv" else ","
        clips = read_table(self.path, self._clip, columns=("path",), delimiter=delimiter)
        if not clips:
            raise AudioError(f"the list {self.path} has no clips; it must have a line for each")
        return clips

    def _clip(self, cells: dict[str, str]) -> Clip:
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
            weight=_weight(cells.get("weight", "")),
        )


def _weight(text: str) -> float:
    try:
        value = float(text or 1.0)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"`weight` must be a number above 0, but is {text!r}")
    return value


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


SPLIT_FOLDERS = {
    "train": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
}
"""Names of folders that are splits -> the split."""


class ImageFolder(Dataset):
    """Every image of a folder, sorted by path; the folder that an image is in is its label.

    Layouts: `class/file`, or `file` alone without labels; where all folders at the top are splits (train; val, valid or
    validation; test), the same inside each of them. Hidden files are left out. Raises `ImageError` when there are no
    images.

    Options:
        path: folder with the images, or with one folder for each class or split
        extensions: extensions of the files to use, without the dot; default those of the usual formats
        valid_is_test: the folder val is the test split, as ImageNet's is used; the evaluation then takes its validation
            part from train
    """

    name = "image_folder"
    media = "image"

    def __init__(
        self, *, path: Path, extensions: list[str] | None = None, valid_is_test: bool = False
    ) -> None:
        self.path, self.extensions, self.valid_is_test = path, extensions, valid_is_test

    def clips(self, split: str | None = None) -> list[Clip]:
        """Images of one split, or all of them."""
        return [clip for clip in self._clips if split is None or clip.split == split]

    def missing(self) -> list[str]:
        """Folders that cannot be read."""
        return [f"a folder that cannot be read: {reason}" for reason in self._files.closed]

    @cached_property
    def _files(self) -> AudioFiles:
        return list_audio(self.path, extensions=self.extensions or IMAGE_EXTENSIONS)

    @cached_property
    def _clips(self) -> list[Clip]:
        files = self._files.readable
        if not files:
            wanted = ", ".join(self.extensions or sorted(IMAGE_EXTENSIONS))
            raise ImageError(f"no images ({wanted}) in {self.path}; check `path` and `extensions`")
        parts = [file.relative_to(self.path).parts[:-1] for file in files]
        has_splits = all(folders and folders[0] in SPLIT_FOLDERS for folders in parts)
        return [self._clip(file, folders, has_splits) for file, folders in zip(files, parts, strict=True)]

    def _clip(self, file: Path, folders: tuple[str, ...], has_splits: bool) -> Clip:
        split = SPLIT_FOLDERS[folders[0]] if has_splits else None
        if split == "valid" and self.valid_is_test:
            split = "test"
        inner = folders[1:] if has_splits else folders
        return Clip(file, labels=inner[-1:], split=split)
