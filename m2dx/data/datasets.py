"""Data sets of folders: all audio files or images in one; `m2dx.data.csv_list` has those of lists."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError, ImageError
from m2dx.data.files import IMAGE_EXTENSIONS, AudioFiles, list_audio


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
        if not all(folders and folders[0] in SPLIT_FOLDERS for folders in parts):
            return [Clip(file, labels=folders[-1:]) for file, folders in zip(files, parts, strict=True)]
        valid = "test" if self.valid_is_test else "valid"
        splits = {name: valid if split == "valid" else split for name, split in SPLIT_FOLDERS.items()}
        return [
            Clip(file, labels=folders[1:][-1:], split=splits[folders[0]])
            for file, folders in zip(files, parts, strict=True)
        ]
