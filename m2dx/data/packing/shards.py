"""Writes the tar files of a pack: each is whole under its name, or not there at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from m2dx.contract.atomic import replace_text
from m2dx.data.packing.encoding import Encoded

_BLOCK = 512  # of tar


@dataclass
class ShardRecord:
    """One shard, and what became of the stretches that it covers; kept beside it until the pack is finished."""

    name: str
    begin: int  # the first stretch that it covers
    end: int = 0  # the stretch after the last
    bytes: int = 0
    sha256: str = ""
    stretches: list[int] = field(
        default_factory=list
    )  # those that have a member, in the order of the members
    suffixes: list[str] = field(default_factory=list)  # of each member
    rows: list[tuple[int, ...]] = field(
        default_factory=list
    )  # of each member, as `m2dx.data.packs.COLUMNS` says
    bad: list[tuple[str, float, float | None, str]] = field(
        default_factory=list
    )  # path, start, duration, reason
    rounded: int = 0  # members whose samples were not 16-bit PCM
    clipped: int = 0  # members with samples beyond full scale

    def write(self, folder: Path) -> None:
        """Beside the shard, by which the shard counts as done."""
        replace_text(folder / f"{self.name}.json", json.dumps(asdict(self)))

    def remove(self, folder: Path) -> None:
        """The shard with its record."""
        for name in (f"{self.name}.json", self.name):
            (folder / name).unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> ShardRecord:
        """What `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class ShardWriter:
    """One shard that is being written, under the name `.NAME.partial` until `finish`."""

    def __init__(self, folder: Path, number: int, begin: int) -> None:
        self.folder, self.number = folder, number
        self.record = ShardRecord(f"shard-{number:05}.tar", begin)
        self._partial = folder / f".{self.record.name}.partial"
        self._file = _Hashed(self._partial)
        self._tar = tarfile.open(  # noqa: SIM115  # it is open for as long as the writer
            fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT
        )

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._tar.offset

    def add(self, stretch: int, encoded: Encoded, about: Mapping[str, Any]) -> None:
        """A member: WebDataset's sample of the audio file and `about` as JSON."""
        info, suffix = encoded.info, encoded.suffix
        assert info is not None
        key = f"{self.number:05}-{len(self.record.stretches):06}"
        place = (self._tar.offset + _BLOCK, len(encoded.content))
        self.record.rows.append((*place, info.sample_rate, info.frames, info.channels))
        self.record.stretches.append(stretch)
        self.record.suffixes.append(suffix)
        self._add(f"{key}.{suffix}" if suffix else key, encoded.content)
        self._add(f"{key}.json", json.dumps(about).encode())

    def finish(self, end: int) -> ShardRecord:
        """Closes the shard, which covers the stretches before `end`, and gives it its name."""
        self._tar.close()
        self.record.end = end
        self.record.bytes, self.record.sha256 = self._file.finish()
        os.replace(self._partial, self.folder / self.record.name)
        self.record.write(self.folder)
        return self.record

    def abandon(self) -> None:
        """Removes what was written."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _add(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))


class _Hashed(io.RawIOBase):
    """A file for writing that knows the checksum of what it got."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._digest, self._bytes = hashlib.sha256(), 0

    def tell(self) -> int:
        return self._bytes

    def write(self, content: Any) -> int:
        self._digest.update(content)
        self._bytes += len(content)
        self._file.write(content)
        return len(content)

    def finish(self) -> tuple[int, str]:
        """Bytes and checksum, when all is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        return self._bytes, self._digest.hexdigest()

    def close(self) -> None:
        """Without finishing."""
        self._file.close()
        super().close()
