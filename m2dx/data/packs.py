"""Packs: audio in a few large tar files (shards), which are read at any place without being unpacked.

A path into a shard, `PACK/shard-00003.tar/00003-000012.flac`, stands wherever the path of an audio file may.
docs/feeding.md has the layout; `m2dx pack` writes it.
"""

from __future__ import annotations

import io
import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from m2dx.contract.errors import AudioError, TrainingError
from m2dx.data.pack_copies import Shard, ensure_shard, is_copy
from m2dx.data.pcm import AudioInfo

MANIFEST = "pack.json"
MEMBERS = "members.npy"
VERSION = 1
COLUMNS = ("begin", "bytes", "sample_rate", "frames", "channels")
"""What `members.npy` says of each audio file: where it lies in its shard, and what its header says."""
_INSIDE = ".tar" + os.sep
_MOST_OPEN = 64  # shards of one process
_MOST_IN_MEMORY = 4 * 2**20  # bytes; of a larger member only what is asked for is read
_MOST_FETCHES = 10  # of a shard that other processes remove again before it is open


class OpenShard:
    """A shard that is open for as long as anything holds this object: other threads may read what the pack lets go."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    @property
    def is_removed(self) -> bool:
        """Whether only open descriptors keep its bytes on the disk."""
        return os.fstat(self.descriptor).st_nlink == 0


@dataclass(frozen=True)
class Member:
    """Where an audio file lies in an open shard. Hold it while you read."""

    shard: OpenShard
    begin: int  # bytes
    size: int

    @property
    def descriptor(self) -> int:
        """Of the shard."""
        return self.shard.descriptor

    def open(self) -> BinaryIO:
        """Its content, as a binary file."""
        if self.size <= _MOST_IN_MEMORY:
            return io.BytesIO(os.pread(self.descriptor, self.size, self.begin))
        return io.BufferedReader(_Part(self), buffer_size=65_536)


class Pack:
    """An open pack. Raises `AudioError` for one that is not there, unfinished, or of another version."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.shards = _shards(self.manifest)
        try:
            self._members: NDArray[np.int64] = np.load(os.path.join(folder, MEMBERS), mmap_mode="r")
        except (OSError, ValueError) as error:
            raise AudioError(f"the pack {folder} cannot be read: {MEMBERS}: {error}") from error
        if self._members.shape != (sum(shard.members for shard in self.shards.values()), len(COLUMNS)):
            raise AudioError(
                f"the pack {folder} is damaged: {MEMBERS} does not fit {MANIFEST}; copy both again"
            )
        self._open: OrderedDict[str, OpenShard] = OrderedDict()  # the last used last

    def member(self, shard_name: str, name: str) -> Member:
        """A member by its name, such as `00003-000012.flac`. Raises `AudioError`, without the path."""
        shard, (begin, size, *_) = self._row(shard_name, name)
        return Member(self._shard(shard), begin, size)

    def info(self, shard_name: str, name: str) -> AudioInfo:
        """What a member's header says, without its shard. Raises `AudioError`, without the path."""
        _, (_, _, *info) = self._row(shard_name, name)
        return AudioInfo(*info)

    def _row(self, shard_name: str, name: str) -> tuple[Shard, list[int]]:
        shard, row = self.shards.get(shard_name), _row(name)
        if shard is None or row is None or row >= shard.members:
            raise AudioError(f"missing: the pack has no member {shard_name}/{name}")
        found: list[int] = self._members[shard.first + row].tolist()
        return shard, found

    def _shard(self, shard: Shard) -> OpenShard:
        # Each step is atomic, so that threads need no lock, which a forked process could inherit as taken.
        opened = self._open.pop(shard.name, None)
        if opened is None:
            opened = self._opened(shard)
            for name, other in list(self._open.items()):
                if other.is_removed:
                    self._open.pop(name, None)
        self._open[shard.name] = opened
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return opened

    def _opened(self, shard: Shard) -> OpenShard:
        for _ in range(_MOST_FETCHES):
            ensure_shard(self.folder, shard)
            try:
                return open_whole(os.path.join(self.folder, shard.name), shard)
            except FileNotFoundError as error:
                if not is_copy(self.folder):
                    raise AudioError(
                        f"missing: the shard {shard.name} cannot be opened: {error.strerror}"
                    ) from error
        raise TrainingError(
            f"{self.folder} must have room for the shards that are read at a time, but other processes removed "
            f"{shard.name} {_MOST_FETCHES} times before it was open; raise `keep_gb`"
        )


def find_member(path: str) -> Member | None:
    """The member that a path into a shard names; None for any other path. Raises `AudioError`, without the path."""
    found = _find(path)
    return None if found is None else found[0].member(*found[1:])


def find_info(path: str) -> AudioInfo | None:
    """What the header of a member says, without its shard; else as `find_member`."""
    found = _find(path)
    return None if found is None else found[0].info(*found[1:])


def _find(path: str) -> tuple[Pack, str, str] | None:
    """The pack, the shard and the member that a path names."""
    place = path.rfind(_INSIDE)
    if place < 0:
        return None
    shard, name = path[: place + 4], path[place + 5 :]
    folder, shard_name = os.path.split(shard)
    try:
        written = os.stat(os.path.join(folder, MANIFEST)).st_mtime_ns
    except OSError:
        if os.path.isfile(shard):
            raise AudioError(
                f"missing: {shard_name} has no {MANIFEST} beside it, as `m2dx pack` writes"
            ) from None
        return None  # a folder whose name ends like a tar file's
    return _pack(folder, written), shard_name, name


def is_shard(path: str) -> bool:
    """Whether a path is that of a shard, which need not be on this machine yet."""
    return path.endswith(".tar") and os.path.exists(os.path.join(os.path.dirname(path), MANIFEST))


def is_there(path: Path) -> bool:
    """Whether a file is there, on the disk or in a pack."""
    try:
        found = _find(os.fspath(path))
        if found is None:
            return path.exists()
        pack, shard_name, name = found
        pack.info(shard_name, name)
    except AudioError:
        return False
    return os.path.exists(os.path.join(pack.folder, shard_name)) or is_copy(pack.folder)


def audio_state(path: Path) -> list[object]:
    """What changes when the content of a file does: its size and time; of one in a pack, the shard's checksum."""
    try:
        found = _find(os.fspath(path))
        if found is None:
            status = path.stat()
            return [status.st_size, status.st_mtime_ns]
        return [found[0].shards[found[1]].sha256]
    except (AudioError, OSError, KeyError):  # reading it will say it
        return []


def read_manifest(folder: str) -> dict[str, Any]:
    """What `pack.json` says; `AudioError` where it is no finished pack of this version."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            manifest: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        raise AudioError(
            f"{folder} must be a finished pack, but has no {MANIFEST}; `m2dx pack DATASET {folder}` makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise AudioError(f"the pack {folder} cannot be read: {MANIFEST}: {error}") from error
    if manifest.get("m2dx_pack") != VERSION:
        raise AudioError(
            f"{path} must be of a pack of version {VERSION}, but says {manifest.get('m2dx_pack')!r}; pack anew"
        )
    return manifest


def open_whole(path: str, shard: Shard) -> OpenShard:
    """A shard of the right size. Raises FileNotFoundError where it is missing, else `AudioError`."""
    try:
        opened = OpenShard(os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AudioError(f"the shard {shard.name} cannot be opened: {error.strerror}") from error
    size = os.fstat(opened.descriptor).st_size
    if size != shard.bytes:
        raise AudioError(f"truncated: the shard {shard.name} must have {shard.bytes} bytes, but has {size}")
    return opened


def _shards(manifest: Mapping[str, Any]) -> dict[str, Shard]:
    shards: dict[str, Shard] = {}
    first = 0
    for item in manifest["shardlist"]:
        shards[item["url"]] = Shard(item["url"], item["filesize"], item["sha256"], first, item["nsamples"])
        first += item["nsamples"]
    return shards


def _row(name: str) -> int | None:
    number = name.partition(".")[0].rpartition("-")[2]
    return int(number) if number.isdecimal() else None


@lru_cache(maxsize=16)
def _pack(folder: str, written: int) -> Pack:
    """The pack whose manifest was written at that time (ns): one that is packed anew is opened anew."""
    return Pack(folder)


class _Part(io.RawIOBase):
    """A member as a file of its own, read on demand."""

    def __init__(self, member: Member) -> None:
        self._member, self._place = member, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._member.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._member.size - self._place))
        done = os.preadv(
            self._member.descriptor, [memoryview(buffer)[:count]], self._member.begin + self._place
        )
        self._place += done
        return done
