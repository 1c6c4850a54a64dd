"""Audio as it is given to a command: files, folders, packs, lists, or paths on stdin."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError
from m2dx.contract.paths import check_regular
from m2dx.data.containers import dataset_of
from m2dx.data.csv_list import CsvDataset
from m2dx.data.datasets import FolderDataset
from m2dx.data.decoding import reason_of
from m2dx.data.files import extension_of

logger = logging.getLogger(__name__)


def clips_of_inputs(inputs: Sequence[Path]) -> list[Clip]:
    """The clips of what a command is given, in its order, each once. No audio is read, and files may be missing.

    An input is an audio file; a folder, whose audio files are found at any depth, or a pack; a list with a header (.csv
    or .tsv, as `CsvDataset` reads them); a .txt list of a path a line, relative to its folder; or "-", paths on stdin.
    Raises `AudioError` for a folder or list that cannot be used, or where there are no clips at all.
    """
    clips: list[Clip] = []
    for path in inputs:
        if path == Path("-"):
            clips += _paths_in(sys.stdin.buffer.read(), Path())
        elif os.path.isdir(path):
            dataset: Dataset = dataset_of(path) or FolderDataset(path=path)
            for line in dataset.missing():
                logger.warning("%s", line)
            clips += dataset.clips()
        elif extension_of(path) in ("csv", "tsv"):
            clips += CsvDataset(path=path).clips()
        elif extension_of(path) == "txt":
            try:
                check_regular(path)
                clips += _paths_in(path.read_bytes(), path.parent)
            except (OSError, ValueError) as error:
                raise AudioError(f"the list {path} {reason_of(error, 'cannot be read')}") from error
        else:
            clips.append(Clip(path))
    if not clips:
        raise AudioError(f"there must be an audio file in {', '.join(map(str, inputs))}, but there is none")
    return list(dict.fromkeys(clips))


def _paths_in(text: bytes, folder: Path) -> list[Clip]:
    """A path a line, or between NUL characters, as `find -print0` writes them."""
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\0" if b"\0" in text else b"\n")
    names = (os.fsdecode(line.strip(b"\r")) for line in lines)
    return [Clip(folder / name) for name in names if name.strip()]
