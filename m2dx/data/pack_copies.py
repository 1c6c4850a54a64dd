"""Packs on object stores and other machines: a local folder into which shards are fetched when they are first read."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2dx.contract.atomic import replace_text
from m2dx.contract.errors import AudioError, TrainingError

if TYPE_CHECKING:
    pass


SOURCE = "source.json"
"""In the local folder: where the pack is from, and how much of it is kept."""
_TRIES = 3
_PAUSE_SECONDS = 2.0  # before the second try, and twice as long before the third
_CHUNK = 2**20  # bytes


def begin_copy(folder: Path, url: str, *, keep_bytes: int | None, files: Sequence[str]) -> None:
    """Makes `folder` the local copy of the pack at `url`, and fetches `files` that are not there yet, in their order.

    Raises `AudioError` where the folder is of another pack, or there is none at the address.
    """
    source = folder / SOURCE
    settings = {"url": url, "keep_bytes": keep_bytes}
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / SOURCE):
        known = json.loads(source.read_text(encoding="utf-8")) if source.exists() else None
        if known is not None and known["url"] != url:
            raise AudioError(
                f"{folder} must be for {url}, but has the pack of {known['url']}; give another `path`"
            )
        if known is None and any(path.suffix != ".lock" for path in folder.iterdir()):
            raise AudioError(f"{folder} must be empty or new to keep the pack of {url}; give another `path`")
        if known != settings:
            replace_text(source, json.dumps(settings))
    for name in files:
        ensure_file(url, folder, name)


def ensure_file(url: str, folder: Path, name: str) -> None:
    """Fetches a file of a pack's index that is not in the folder; one process does it."""
    if (folder / name).exists():
        return
    with _lock(folder / name):
        if not (folder / name).exists():
            fetch(url, folder, name)


def is_copy(folder: str) -> bool:
    """Whether a folder is the local copy of a pack elsewhere."""
    return os.path.exists(os.path.join(folder, SOURCE))


def ensure_shard(folder: str, shard: Shard) -> None:
    """Fetches a shard that is not in the folder, if this is the local copy of a pack elsewhere; one process does it.

    Raises `TrainingError` where it cannot be fetched: a store that is out of reach is no bad file.
    """
    path = os.path.join(folder, shard.name)
    if os.path.exists(path):
        with suppress(OSError):
            os.utime(path)  # used now: the last to be removed
        return
    try:
        settings = json.loads(Path(folder, SOURCE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    with _lock(Path(path)):
        if os.path.exists(path):
            return
        try:
            fetch(settings["url"], Path(folder), shard.name, shard=shard)
        except AudioError as error:
            raise TrainingError(f"{error}; when it is in reach again, go on with --resume") from error
        if settings["keep_bytes"] is not None:
            _remove_oldest(Path(folder), settings["keep_bytes"], but=shard.name)


def fetch(url: str, folder: Path, name: str, *, shard: Shard | None = None) -> None:
    """Copies a file of a pack, whole or not at all; checks the sum of a shard. `AudioError` after three tries."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
        partial = folder / f".{name}.partial"
        try:
            digest = _copy(f"{url.rstrip('/')}/{name}", partial)
            if shard is not None and digest != shard.sha256:
                raise OSError(f"its SHA-256 must be {shard.sha256}, but is {digest}")
            os.replace(partial, folder / name)
            return
        except FileNotFoundError as error:
            failed: Exception = error
            break
        except ImportError as error:  # fsspec's drivers of some stores are packages of their own
            failed = error
            break
        except Exception as error:  # of any kind: each store has its own
            failed = error
        finally:
            partial.unlink(missing_ok=True)
    raise AudioError(f"{url}/{name} cannot be fetched: {type(failed).__name__}: {failed}") from failed


def _copy(url: str, path: Path) -> str:
    """Copies a file, and gives its SHA-256."""
    import fsspec

    digest = hashlib.sha256()
    with fsspec.open(url, "rb") as source, path.open("wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _remove_oldest(folder: Path, keep_bytes: int, *, but: str) -> None:
    """Removes shards that were not used for longest, until the others have at most `keep_bytes`."""
    with _lock(folder / "shards"):
        found = [(path, path.stat()) for path in folder.glob("shard-*.tar")]
        total = sum(status.st_size for _, status in found)
        for path, status in sorted(found, key=lambda item: item[1].st_mtime_ns):
            if total <= keep_bytes:
                return
            if path.name != but:
                total -= status.st_size
                path.unlink()  # who has it open reads on


def _lock(path: Path) -> Any:
    from filelock import FileLock

    return FileLock(path.with_name(f".{path.name}.lock"))


@dataclass(frozen=True)
class Shard:
    """One tar file of a pack."""

    name: str
    bytes: int
    sha256: str
    first: int  # its first row of the pack's members
    members: int
