"""Packs: audio in a few large tar files (shards), which are read at any place without being unpacked.

A path into a shard, `PACK/shard-00003.tar/00003-000012.flac`, stands wherever the path of an audio file may. A pack on
an object store or another machine has a local folder, its copy, into which shards are fetched when they are first read.
docs/feeding.md has the layout; `m2dx pack` writes it. The functions are what `m2dx.data.containers` asks of a reader.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import time
import zlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from filelock import BaseFileLock, FileLock
from numpy.typing import NDArray
from pydantic import Base64Bytes, BaseModel, Field, NonNegativeInt, TypeAdapter

from m2dx.contract.atomic import replace_text
from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError, TrainingError
from m2dx.contract.paths import check_regular
from m2dx.contract.wording import problem_of
from m2dx.data.csv_list import HEAVIEST, LONGEST_SECONDS
from m2dx.data.headers import Spliced
from m2dx.data.pcm import AudioInfo

MANIFEST = "pack.json"
MEMBERS = "members.npy"
BLOCK_BYTES = 2**18
"""Of a shard, whose checksums are those of such blocks: what is read is checked, and not more than that."""
TAR_BLOCK = 512
"""Bytes: what is in a tar file has a head of one block, and begins with a block."""
SOURCE = "source.json"
"""In the folder of a copy: where the pack is from, and how much of it is kept."""
VERSION = 1
_COLUMNS = 5
"""Of `members.npy`, for each audio file: its first byte in the shard, bytes, sample rate, frames, channels."""
_INSIDE = ".tar" + os.sep
_MOST_OPEN = 64  # shards of one process
_MOST_IN_MEMORY = 4 * 2**20  # bytes; of a larger member only what is asked for is read
_MOST_EXAMPLES = 5  # of shards that are not whole
_TRIES = 3
_PAUSE_SECONDS = 2.0  # before the second try to fetch, and twice as long before the third


class Shard(BaseModel):
    """One tar file of a pack."""

    name: Annotated[str, Field(alias="url", pattern=r"^shard-\d+\.tar$")]
    bytes: Annotated[NonNegativeInt, Field(alias="filesize")]
    sha256: str
    members: Annotated[NonNegativeInt, Field(alias="nsamples")]
    crc32: Base64Bytes  # of each block, 4 bytes in little-endian order
    first: NonNegativeInt = 0  # its first row of the pack's members


class _Manifest(BaseModel):
    m2dx_pack: Any  # the version
    lists: dict[Annotated[str, Field(pattern=r"^[^/\\]+$")], NonNegativeInt]  # clips
    sha256: dict[str, str]  # of the other files of the index; one that is not in it is not checked
    shardlist: list[Shard]


class OpenShard:
    """A shard that is open for as long as anything holds this object: other threads may read what the pack lets go."""

    def __init__(self, path: Path, shard: Shard) -> None:
        """Raises FileNotFoundError where it is missing, `AudioError` where it is not whole or cannot be opened."""
        self._name, self._checksums = shard.name, np.frombuffer(shard.crc32, dtype="<u4")
        try:
            check_regular(path)
            self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise AudioError(f"the shard {shard.name} cannot be opened: {error.strerror}") from error
        status = os.fstat(self.descriptor)
        size = status.st_size
        self._checked = _checked_blocks(status.st_dev, status.st_ino, status.st_mtime_ns, size)
        if size != shard.bytes:
            raise AudioError(
                f"truncated: the shard {shard.name} must have {shard.bytes} bytes, but has {size}"
            )

    def check(self, first: int, count: int) -> None:
        """AudioError where bytes are not those that were packed; a process looks at each block once."""
        for block in range(first // BLOCK_BYTES, -(-(first + count) // BLOCK_BYTES)):
            if not self._checked[block]:
                content = os.pread(self.descriptor, BLOCK_BYTES, block * BLOCK_BYTES)
                if [zlib.crc32(content)] != self._checksums[block : block + 1].tolist():
                    at = block * BLOCK_BYTES
                    raise AudioError(
                        f"damaged: the shard {self._name} is not what was packed at byte {at}; copy it again"
                    )
                self._checked[block] = 1

    def __del__(self) -> None:
        with suppress(AttributeError):  # it was not opened
            os.close(self.descriptor)


@lru_cache(maxsize=4096)
def _checked_blocks(device: int, inode: int, changed: int, size: int) -> bytearray:
    """Which blocks of a shard are known to be whole, also when it is opened again."""
    return bytearray(size // BLOCK_BYTES + 1)


@dataclass(frozen=True)
class Member:
    """Where an audio file lies in an open shard. Hold it while you read."""

    shard: OpenShard
    first: int  # byte
    size: int

    @property
    def descriptor(self) -> int:
        """Of the open shard."""
        return self.shard.descriptor

    def check(self, first: int, count: int) -> None:
        """AudioError where bytes of the shard are not those that were packed."""
        self.shard.check(first, count)

    def open(self) -> BinaryIO:
        """Its content, as a binary file."""
        if self.size <= _MOST_IN_MEMORY:
            self.shard.check(self.first, self.size)
            return io.BytesIO(self.read(self.first, self.size))
        parts = ((self.first, self.first + self.size),)
        return io.BufferedReader(Spliced(self.read, parts), buffer_size=65_536)

    def about(self) -> dict[str, Any]:
        """What the JSON beside it says."""
        place = self.first + -(-self.size // TAR_BLOCK) * TAR_BLOCK
        head = tarfile.TarInfo.frombuf(self.read(place, TAR_BLOCK), "utf-8", "strict")
        about: dict[str, Any] = json.loads(self.read(place + TAR_BLOCK, head.size))
        return about

    def read(self, first: int, count: int) -> bytes:
        """Bytes of the shard; none from a damaged block on, as libsndfile, which may ask for them, takes no error."""
        try:
            self.shard.check(first, count)
        except AudioError:
            return b""
        return os.pread(self.shard.descriptor, count, first)


class Pack:
    """An open pack. Raises `AudioError` for one that is not there, unfinished, or of another version."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        manifest = Path(folder, MANIFEST)
        if not manifest.exists():
            raise AudioError(
                f"{folder} must be a finished pack, but has no {MANIFEST}; `m2dx pack DATASET {folder}` makes one"
            )
        with AudioError.blaming(f"the pack {folder} cannot be read: {MANIFEST}"):
            check_regular(manifest)
            found = _Manifest.model_validate_json(manifest.read_bytes())
        if found.m2dx_pack != VERSION:
            raise AudioError(
                f"{manifest} must be of a pack of version {VERSION}, but says {found.m2dx_pack!r}; pack anew"
            )
        self.lists, self._sha256 = found.lists, found.sha256
        self.shards: dict[str, Shard] = {}
        rows = 0
        for shard in found.shardlist:
            self.shards[shard.name] = shard.model_copy(update={"first": rows})
            rows += shard.members
        path = self.index(MEMBERS)
        with AudioError.blaming(f"the pack {folder} cannot be read: {MEMBERS}"):
            self._members: NDArray[np.int64] = np.load(path, mmap_mode="r")
        if (self._members.dtype, self._members.shape) != (np.int64, (rows, _COLUMNS)):
            raise AudioError(
                f"the pack {folder} is damaged: {MEMBERS} does not fit {MANIFEST}; copy both again"
            )
        self._open: OrderedDict[str, OpenShard] = OrderedDict()  # the last used last

    def index(self, name: str) -> Path:
        """A file of the index; `AudioError` where it is not what was packed."""
        path = Path(self.folder, name)
        with AudioError.blaming(f"the pack {self.folder} cannot be read: {name}"):
            check_regular(path)
            sha256 = sha256_of(path)
        if self._sha256.get(name, sha256) != sha256:
            raise AudioError(
                f"the pack {self.folder} is damaged: {name} has another SHA-256 than {MANIFEST} says; copy it again, "
                "or take its line out of `sha256` there if you have changed it yourself"
            )
        return path

    def member(self, shard_name: str, name: str) -> Member:
        """A member by its name, such as `00003-000012.flac`. Raises `AudioError`, without the path."""
        shard, (first, size, *_) = self._row(shard_name, name)
        return Member(self._opened(shard), first, size)

    def info(self, shard_name: str, name: str) -> AudioInfo:
        """What a member's header says, without its shard. Raises `AudioError`, without the path."""
        _, (_, _, *info) = self._row(shard_name, name)
        return AudioInfo(*info)

    def _row(self, shard_name: str, name: str) -> tuple[Shard, list[int]]:
        shard, number = self.shards.get(shard_name), name.partition(".")[0].rpartition("-")[2]
        if shard is None or not number.isdecimal() or int(number) >= shard.members:
            raise AudioError(f"missing: the pack has no member {shard_name}/{name}")
        row: list[int] = self._members[shard.first + int(number)].tolist()
        if min(row) <= 0 or row[0] + row[1] > shard.bytes:
            raise AudioError(f"damaged: {MEMBERS} of the pack does not fit {shard_name}/{name}")
        return shard, row

    def _opened(self, shard: Shard) -> OpenShard:
        # Each step is atomic, so that threads need no lock, which a forked process could inherit as taken.
        opened = self._open.pop(shard.name, None)
        if opened is None:
            opened = _open_shard(Path(self.folder), shard)
            for name, other in list(self._open.items()):
                if os.fstat(other.descriptor).st_nlink == 0:  # removed: only this process keeps its bytes
                    self._open.pop(name, None)
        self._open[shard.name] = opened
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return opened


def sha256_of(path: Path) -> str:
    """That of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_member(path: str) -> Member | None:
    """The member that a path into a shard names; None for any other path. Raises `AudioError`, without the path."""
    found = _find(path)
    return found and found[0].member(*found[1:])


def find_info(path: str) -> AudioInfo | None:
    """What the header of a member says, without its shard; else as `find_member`."""
    found = _find(path)
    return found and found[0].info(*found[1:])


def is_container(path: str) -> bool:
    """Whether a path is that of a shard, which need not be on this machine yet."""
    return os.path.exists(os.path.join(os.path.dirname(path), MANIFEST))


def is_member(path: str) -> bool | None:
    """Whether a member is there; None for a path that is not into a shard."""
    found = _find(path)
    if found is None:
        return None
    pack, shard_name, name = found
    pack.info(shard_name, name)
    return os.path.exists(os.path.join(pack.folder, shard_name)) or _is_copy(Path(pack.folder))


def state(path: str) -> list[object] | None:
    """The checksum of the member's shard; None for a path that is not into a shard."""
    found = _find(path)
    return None if found is None else [found[0].shards[found[1]].sha256]


def origin(path: str) -> tuple[str, float] | None:
    """The file that a member was made of, and where in it the member begins, s; else as `find_member`."""
    member = find_member(path)
    if member is None:
        return None
    with AudioError.blaming(f"damaged: the JSON beside {os.path.basename(path)} cannot be read"):
        about = member.about()
        return about["source"], about["begin"]


def dataset_of(folder: Path) -> Dataset | None:
    """The clips of a pack; None for any other folder."""
    return PackedDataset(path=folder) if (folder / MANIFEST).is_file() else None


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


@lru_cache(maxsize=16)
def _pack(folder: str, written: int) -> Pack:
    """The pack whose manifest was written at that time (ns): one that is packed anew is opened anew."""
    return Pack(folder)


class PackedDataset(Dataset):
    """The clips of a pack, in the order of the list that was packed, with its labels, splits, groups and weights.

    Raises `AudioError` where the folder is not a finished pack. Shards that are missing or not whole are counted by
    `missing()`; their clips stay in the list, so that they count as bad files when they are read.

    Options:
        path: folder that `m2dx pack` wrote
        part: which list to use, of a pack with several: that of a recipe has one for each data set
        url: address of the pack on an object store or another machine (fsspec: s3://, gs://, https://, ...); `path` is
            then the folder into which its shards are fetched, each when it is first read
        keep_gb: with `url`, most GB of shards kept in `path`; the least recently used ones are removed; default all
            are kept
    """

    name = "packed"

    def __init__(
        self, *, path: Path, part: str | None = None, url: str | None = None, keep_gb: float | None = None
    ) -> None:
        if url is not None and ("?" in url or "@" in url.partition("://")[2].partition("/")[0]):
            raise AudioError(
                "`url` must have no user, password or query, as it goes into recipes, checkpoints and reports; "
                "give credentials to fsspec by its configuration files or environment variables"
            )
        if keep_gb is not None and (url is None or keep_gb <= 0):
            raise AudioError(f"`keep_gb` must be above 0 and beside `url`, but is {keep_gb} (url: {url})")
        self.path, self.part, self.url, self.keep_gb = path, part, url, keep_gb

    def clips(self, split: str | None = None) -> list[Clip]:
        """Clips of one split, or all of them."""
        return [clip for clip in self._listed[1] if split is None or clip.split == split]

    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, as those of the data set that was packed."""
        return self._listed[0]

    def missing(self) -> list[str]:
        """One line where shards are missing or not whole: how many, and the first ones."""
        if self.url is not None:
            return []
        shards = self._pack.shards.values()
        sizes = {path.name: path.stat().st_size for path in self.path.glob("*.tar")}
        absent = [shard.name for shard in shards if sizes.get(shard.name) != shard.bytes]
        if not absent:
            return []
        return [
            f"{len(absent)} of {len(shards)} shards of {self.path} are missing or not whole, e.g. "
            + ", ".join(absent[:_MOST_EXAMPLES])
        ]

    @cached_property
    def _pack(self) -> Pack:
        if self.url is not None:
            _start_copy(self.path, self.url, self.keep_gb)
            for name in (MEMBERS, MANIFEST):
                _ensure_file(self.url, self.path, name)
        return Pack(os.fspath(self.path))

    @cached_property
    def _listed(self) -> tuple[tuple[str, ...], list[Clip]]:
        """The label names, and all clips."""
        lists = self._pack.lists
        part = next(iter(lists)) if self.part is None and len(lists) == 1 else self.part
        if part not in lists:
            given = "is not given" if part is None else f"is {part!r}"
            raise AudioError(
                f"`part` must be one of the lists of {self.path} ({', '.join(map(repr, lists))}), but {given}"
            )
        name = f"{part}.jsonl"
        if self.url is not None:
            _ensure_file(self.url, self.path, name)
        number, clips, adapter = 1, list[Clip](), TypeAdapter(Clip)
        try:
            with self._pack.index(name).open("rb") as file:
                label_names = tuple(json.loads(file.readline())["label_names"])
                for number, text in enumerate(file, 2):  # noqa: B007  told in the error
                    clip = adapter.validate_json(text)
                    duration = 1.0 if clip.duration is None else clip.duration
                    if not (
                        0.0 <= clip.start <= LONGEST_SECONDS
                        and 0.0 < duration <= LONGEST_SECONDS
                        and 0.0 < clip.weight <= HEAVIEST
                    ):
                        raise ValueError(f"no clip has such start, duration or weight: {clip}")
                    clips.append(replace(clip, path=self.path / clip.path))
        except (ValueError, LookupError, TypeError) as error:
            raise AudioError(
                f"the pack {self.path} cannot be read: {name}, line {number}: {problem_of(error)}"
            ) from error
        if len(clips) != lists[part]:
            raise AudioError(
                f"the pack {self.path} is damaged: {name} must have {lists[part]} clips, but has {len(clips)}"
            )
        return label_names, clips


def _is_copy(folder: Path) -> bool:
    """Whether a folder is the local copy of a pack elsewhere."""
    return (folder / SOURCE).exists()


def _start_copy(folder: Path, url: str, keep_gb: float | None) -> None:
    """Makes `folder` the local copy of the pack at `url`. Raises `AudioError` where it is for anything else."""
    source = folder / SOURCE
    settings = {"url": url, "keep_bytes": None if keep_gb is None else round(keep_gb * 1e9)}
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(source):
        with AudioError.blaming(f"{source} cannot be read"):
            known = json.loads(source.read_text(encoding="utf-8")) if source.exists() else None
            if known is not None and known["url"] != url:
                raise AudioError(
                    f"{folder} must be for {url}, but has the pack of {known['url']}; give another `path`"
                )
        if known is None and any(path.suffix != ".lock" for path in folder.iterdir()):
            raise AudioError(f"{folder} must be empty or new to keep the pack of {url}; give another `path`")
        if known != settings:
            replace_text(source, json.dumps(settings))


def _ensure_file(url: str, folder: Path, name: str) -> None:
    """Fetches a file of a pack's index that is not in the folder; one process does it."""
    with _lock(folder / name):
        if not (folder / name).exists():
            os.replace(_fetch(url, folder, name), folder / name)


def _open_shard(folder: Path, shard: Shard) -> OpenShard:
    """Opens a shard, after it is fetched where this is the copy of a pack elsewhere; one process does it.

    Raises `AudioError` where it is missing, `TrainingError` where it cannot be fetched: a store that is out of reach is
    no bad file.
    """
    path = folder / shard.name
    if not _is_copy(folder):
        try:
            return OpenShard(path, shard)
        except FileNotFoundError as error:
            raise AudioError(f"missing: the shard {shard.name} cannot be opened: {error.strerror}") from error
    with suppress(OSError):
        os.utime(path)  # used now: the last to be removed
    with suppress(FileNotFoundError):
        return OpenShard(path, shard)
    with _lock(path):
        with suppress(FileNotFoundError):  # another process may have fetched it by now
            return OpenShard(path, shard)
        settings = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        try:
            partial = _fetch(settings["url"], folder, shard.name, sha256=shard.sha256)
        except AudioError as error:
            raise TrainingError(f"{error}; when it is in reach again, go on with --resume") from error
        # Opened before others can see it, and remove it again.
        opened = OpenShard(partial, shard)
        os.replace(partial, path)
    if settings["keep_bytes"] is not None:
        _remove_oldest(folder, settings["keep_bytes"], but=path)
    return opened


def _fetch(url: str, folder: Path, name: str, *, sha256: str | None = None) -> Path:
    """Copies a file of a pack to the path that it gives, checked, for the caller to rename.

    Raises `AudioError` after three tries, or at once where the file or the driver of the store is missing.
    """
    partial = folder / f".{name}.partial"
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
        try:
            found = _copy(f"{url.rstrip('/')}/{name}", partial)
            if sha256 not in (None, found):
                raise OSError(f"its SHA-256 must be {sha256}, but is {found}")
            return partial
        except Exception as error:  # of any kind: each store has its own
            failed = error
            partial.unlink(missing_ok=True)
            if isinstance(error, FileNotFoundError | ImportError):
                break
    raise AudioError(f"{url}/{name} cannot be fetched: {type(failed).__name__}: {failed}") from failed


def _copy(url: str, path: Path) -> str:
    """Copies a file, and gives its SHA-256."""
    import fsspec

    with fsspec.open(url, "rb") as source, path.open("w+b") as target:
        shutil.copyfileobj(source, target)
        target.seek(0)
        return hashlib.file_digest(target, "sha256").hexdigest()


def _remove_oldest(folder: Path, keep_bytes: int, *, but: Path) -> None:
    """Removes shards that were not used for longest, until the others have at most `keep_bytes`."""
    with _lock(folder / "shards"):
        found = sorted((path.stat().st_mtime_ns, path) for path in folder.glob("shard-*.tar"))
        total = sum(path.stat().st_size for _, path in found)
        for _, path in found:
            if total > keep_bytes and path != but:
                total -= path.stat().st_size
                path.unlink()  # who has it open reads on


def _lock(path: Path) -> BaseFileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))
