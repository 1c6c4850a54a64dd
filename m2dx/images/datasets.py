"""The images of a folder as data set."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from m2dx.audio.files import AudioFiles, list_audio
from m2dx.components import Clip, Dataset
from m2dx.errors import ImageError
from m2dx.images.reading import IMAGE_EXTENSIONS

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
