"""Audio files inside larger ones, such as the shards of a pack: `PACK/shard-00003.tar/00003-000012.flac`.

Such a path stands wherever the path of an audio file may. What is inside is read by the module that an installed
package names in the entry points `m2dx.containers`; m2dx-pack is such a package. Without one, files are files.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError
from m2dx.data.pcm import AudioInfo

_INSIDE = ".tar" + os.sep


class Member(Protocol):
    """Where an audio file lies in an open container. Hold it while you read."""

    first: int  # byte
    size: int

    @property
    def descriptor(self) -> int:
        """Of the open container."""

    def check(self, first: int, count: int) -> None:
        """AudioError where bytes of the container are not those that were written."""

    def open(self) -> BinaryIO:
        """Its content, as a binary file."""


class Containers(Protocol):
    """What the module of a package has. A path that is not into a container gives None."""

    def find_member(self, path: str) -> Member | None:
        """The member that a path names. Raises `AudioError`, without the path."""

    def find_info(self, path: str) -> AudioInfo | None:
        """What the header of a member says; else as `find_member`."""

    def is_container(self, path: str) -> bool:
        """Whether a path, which ends in .tar, is that of a container, which need not be on this machine yet."""

    def is_member(self, path: str) -> bool | None:
        """Whether the member that a path names is there."""

    def state(self, path: str) -> list[object] | None:
        """What changes when the content of a member does."""

    def origin(self, path: str) -> tuple[str, float] | None:
        """The file that a member was made of, and where in it the member begins, s; else as `find_member`."""

    def dataset_of(self, folder: Path) -> Dataset | None:
        """The clips of a folder of containers."""


@lru_cache
def _containers() -> Containers | None:
    found = next(iter(entry_points(group="m2dx.containers")), None)
    return None if found is None else cast(Containers, found.load())


def _inside(path: str) -> Containers | None:
    """What reads a path inside a container; `AudioError` where a file is to be one and nothing is installed for it."""
    place = path.rfind(_INSIDE)
    if place < 0:
        return None
    found = _containers()
    if found is None and os.path.isfile(path[: place + 4]):
        raise AudioError("missing: files in a .tar are read by the package m2dx-pack, which is not installed")
    return found


def find_member(path: str) -> Member | None:
    """The member of a container that a path names; None for any other path. Raises `AudioError`, without the path."""
    reader = _inside(path)
    return None if reader is None else reader.find_member(path)


def find_info(path: str) -> AudioInfo | None:
    """What the header of a member says, without its container; else as `find_member`."""
    reader = _inside(path)
    return None if reader is None else reader.find_info(path)


def is_container(path: str) -> bool:
    """Whether a path is that of a container, which need not be on this machine yet."""
    reader = _containers() if path.endswith(".tar") else None
    return reader is not None and reader.is_container(path)


def dataset_of(folder: Path) -> Dataset | None:
    """The clips of a folder of containers; None for any other folder."""
    reader = _containers()
    return None if reader is None else reader.dataset_of(folder)


def origin_of(clip: Clip) -> Clip | None:
    """The clip of another file that one in a container was made of; None: it is in none. Else as `find_member`."""
    reader = _inside(os.fspath(clip.path))
    found = None if reader is None else reader.origin(os.fspath(clip.path))
    return None if found is None else replace(clip, path=Path(found[0]), start=found[1] + clip.start)


def is_there(path: Path) -> bool:
    """Whether a file is there, on the disk or in a container."""
    try:
        reader = _inside(os.fspath(path))
        found = None if reader is None else reader.is_member(os.fspath(path))
    except (AudioError, OSError, ValueError):  # a name that is too long, a folder that is closed
        return False
    return os.path.exists(path) if found is None else found


def audio_state(path: Path) -> list[object]:
    """What changes when the content of a file does: its size and times; of one in a pack, the shard's checksum.

    Among the times is that of the last change of the file's entry, which no program can set: content that is replaced
    by some of the same size and time (`rsync -t`, `touch -r`) is told by it.
    """
    try:
        reader = _inside(os.fspath(path))
        found = None if reader is None else reader.state(os.fspath(path))
        if found is not None:
            return found
        status = path.stat()
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    except (AudioError, OSError, KeyError):  # reading it will say it
        return []
