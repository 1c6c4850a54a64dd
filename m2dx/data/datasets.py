"""Data sets of folders: all audio files or images in one; `m2dx.data.csv_list` has those of lists."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError, ImageError, RecipeError
from m2dx.data.csv_list import SPLITS, note_of_splits, plain_text, take_splits
from m2dx.data.division import FoldCount, Holdout, divided
from m2dx.data.files import IMAGE_EXTENSIONS, AudioFiles, list_audio

logger = logging.getLogger(__name__)


class FolderDataset(Dataset):
    """Every audio file of a folder, sorted by path.

    Hidden files (a name that starts with a dot) are left out. Raises `AudioError` when the folder is missing or
    has no audio files.

    Options:
        path: folder with the audio files
        extensions: extensions of the files to use, without the dot; default all that soundfile reads
        label_from_folder: the label of a clip is the name of the folder that the file is in
        pattern: regular expression whose named groups `label`, `group` (such as the patient) and `split` say these of
            each file; it is looked for in the path below the folder, such as MR/p07/3.wav
        split: test part that is taken of the files, whole groups and the same share of each class, such as
            {test: 0.2, by: group}
        folds: number of folds that the files are divided into, instead of `split`
    """

    name = "folder"

    def __init__(
        self,
        *,
        path: Path,
        extensions: list[str] | None = None,
        label_from_folder: bool = False,
        pattern: re.Pattern[str] | None = None,
        split: Holdout | None = None,
        folds: FoldCount | None = None,
    ) -> None:
        self.path = path
        self.extensions, self.label_from_folder, self.pattern = extensions, label_from_folder, pattern
        self.split, self.folds = split, folds
        self._splits: dict[str, str] = {}
        if pattern is not None and not {"label", "group", "split"} >= set(pattern.groupindex) > set():
            raise RecipeError(
                "`pattern` must have named groups, (?P<label>...), (?P<group>...) or (?P<split>...), and no others, "
                f"but is {pattern.pattern!r}"
            )

    def clips(self, split: str | None = None) -> list[Clip]:
        """Files of one split, or all of them; without `pattern`, `split` and `folds` there are no splits."""
        clips = self._clips
        wanted = self._splits.get(split or "", split)
        return [clip for clip in clips if split is None or clip.split == wanted]

    def missing(self) -> list[str]:
        """Audio files of formats that soundfile cannot read, counted by extension."""
        return self._files.missing()

    @cached_property
    def _files(self) -> AudioFiles:
        return list_audio(self.path, extensions=self.extensions)

    @cached_property
    def _clips(self) -> list[Clip]:
        files = self._files.readable
        if not files:
            wanted = "" if self.extensions is None else f" ({', '.join(self.extensions)})"
            raise AudioError(f"no audio files{wanted} in {self.path}; check `path` and `extensions`")
        clips = [self._clip(file) for file in files]
        if unlike := [str(file) for file, clip in zip(files, clips, strict=True) if clip is None]:
            some = f"{len(unlike)} of {len(files)}, e.g. {', '.join(unlike[:3])}"
            raise AudioError(f"`pattern` must fit every file in {self.path}, but does not fit {some}")
        found, self._splits = take_splits(list(filter(None, clips)))
        if self._splits:
            logger.warning("%s: %s", self.path, note_of_splits(self._splits))
        # By the folders, whether they are labels or not: a folder is always divided in the same way.
        named = [clip if clip.labels else replace(clip, labels=(clip.path.parent.name,)) for clip in found]
        parts = divided(named, str(self.path), split=self.split, folds=self.folds)
        return [replace(part, labels=clip.labels) for part, clip in zip(parts, found, strict=True)]

    def _clip(self, file: Path) -> Clip | None:
        """None: the pattern does not fit."""
        named: dict[str, str] = {"label": file.parent.name} if self.label_from_folder else {}
        if self.pattern is not None:
            match = self.pattern.search(file.relative_to(self.path).as_posix())
            if match is None:
                return None
            named |= {name: text for name, text in match.groupdict().items() if text}
        named = {name: plain_name(text) for name, text in named.items()}
        labels = (named["label"],) if "label" in named else ()
        return Clip(file, labels=labels, split=named.get("split"), group=named.get("group"))


def plain_name(name: str) -> str:
    """A part of a path as text: bytes that are not UTF-8 become their codes."""
    return plain_text(os.fsencode(name).decode("utf-8", "backslashreplace"))


SPLIT_FOLDERS = {name: SPLITS[name] for name in ("train", "val", "valid", "validation", "test")}
"""Names of folders that are splits -> the split."""


class ImageFolder(FolderDataset):
    """Every image of a folder, sorted by path; the folder that an image is in is its label.

    Layouts: `class/file`, or `file` alone without labels; where all folders at the top are splits (train; val, valid or
    validation; test), the same inside each of them. Hidden files are left out. Raises `ImageError` when there are no
    images.

    Options:
        path: folder with the images, or with one folder for each class or split
        extensions: extensions of the files to use, without the dot; default those of the usual formats
        valid_is_test: the folder val is the test split, as ImageNet's is used; the evaluation then takes its validation
            part from train
        split: test part that is taken of images without splits, as that of the data set `folder`
        folds: number of folds that they are divided into, instead of `split`
    """

    name = "image_folder"
    media = "image"

    def __init__(
        self,
        *,
        path: Path,
        extensions: list[str] | None = None,
        valid_is_test: bool = False,
        split: Holdout | None = None,
        folds: FoldCount | None = None,
    ) -> None:
        found = extensions or sorted(IMAGE_EXTENSIONS)
        super().__init__(path=path, extensions=found, split=split, folds=folds)
        self.valid_is_test = valid_is_test

    @cached_property
    def _clips(self) -> list[Clip]:
        files = self._files.readable
        if not files:
            wanted = ", ".join(self.extensions or ())
            raise ImageError(f"no images ({wanted}) in {self.path}; check `path` and `extensions`")
        parts = [tuple(map(plain_name, file.relative_to(self.path).parts[:-1])) for file in files]
        if not all(folders and folders[0] in SPLIT_FOLDERS for folders in parts):
            clips = [Clip(file, labels=folders[-1:]) for file, folders in zip(files, parts, strict=True)]
            return divided(clips, str(self.path), split=self.split, folds=self.folds)
        named = [SPLIT_FOLDERS[folders[0]] for folders in parts]
        splits = ["test" if self.valid_is_test and split == "valid" else split for split in named]
        placed = zip(files, parts, splits, strict=True)
        return [Clip(file, labels=folders[1:][-1:], split=split) for file, folders, split in placed]
