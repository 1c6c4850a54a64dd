"""Features of utterances on disk, for any number of processes at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import m2dx
from m2dx_hubert.architectures import FRAME_RATE

logger = logging.getLogger(__name__)

Features = NDArray[np.float16]
"""(S, C), of one utterance or crop."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class FeatureCache:
    """Features as float16 in `FOLDER/KEY/xx/NAME.npy`; `FOLDER/KEY/key.json` says what they were made with.

    A file is written under another name and then moved, so that a reader never sees a part of one. Raises
    `TrainingError` where the folder cannot be written, or is full.
    """

    def __init__(self, folder: Path, key: Mapping[str, object], *, embed_dim: int) -> None:
        self.key, self.embed_dim = dict(key), embed_dim
        self.folder = folder / _digest(json.dumps(self.key, sort_keys=True).encode())
        self.written, self.written_bytes = 0, 0  # by this process
        self._warnings: Counter[str] = Counter()

    def get(self, name: str) -> Features | None:
        """The features of that name, mapped from the file, not read yet; None: there are none.

        A damaged file counts as none, with a warning.
        """
        path = self._path(name)
        try:
            features: Features = np.lib.format.open_memmap(path, mode="r")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            self.report_damage(name, str(error))
            return None
        if features.dtype != np.float16 or features.ndim != 2 or features.shape[1] != self.embed_dim:
            self.report_damage(name, f"it holds {features.dtype} {features.shape}")
            return None
        return features

    def put(self, name: str, features: Features) -> None:
        """Keep features under a name, in place of what is there."""
        buffer = io.BytesIO()
        np.save(buffer, features)
        try:
            if not (self.folder / "key.json").exists():
                text = json.dumps(self.key, indent=2) + "\n"
                _write(self.folder / "key.json", memoryview(text.encode()))
            _write(self._path(name), buffer.getbuffer())
        except OSError as error:
            raise m2dx.TrainingError(self._cannot_write(error)) from error
        self.written += 1
        self.written_bytes += features.nbytes

    def report_damage(self, name: str, reason: str) -> None:
        """Warn of a file that is made anew."""
        reason = " ".join(reason.split())
        self.warn("damaged", f"a damaged file of features is made anew: {self._path(name)}: {reason}")

    def warn(self, kind: str, text: str) -> None:
        """Log a warning with the number of its kind so far: of the 1st, 10th, 100th, ... one."""
        self._warnings[kind] += 1
        count = self._warnings[kind]
        if set(str(count)[1:]) <= {"0"} and str(count)[0] == "1":
            logger.warning("%s (%d such in this process so far)", text, count)

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.npy"

    def _cannot_write(self, error: OSError) -> str:
        per_hour = 3600 * FRAME_RATE * self.embed_dim * 2 / 1e9
        what = "has no room left" if error.errno in _FULL else "must be a folder that can be written"
        return (
            f"the cache of features {self.folder.parent} {what} ({error.strerror or error}); this process wrote "
            f"{self.written} files ({self.written_bytes / 1e9:.2f} GB), and each hour of audio needs {per_hour:.2f} "
            "GB; make room (what is there will be used), set `cache` to another folder, or leave it out"
        )


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return hasher.hexdigest()


def name_of_clip(clip: m2dx.Clip) -> str:
    """The cache's name for a whole clip; another one as soon as the file changes. Raises `OSError`."""
    state = m2dx.audio_state(clip.path)
    if not state:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return _digest(json.dumps([os.path.abspath(clip.path), clip.start, clip.duration, *state]).encode())


def name_of_wav(wav: NDArray[np.float32]) -> str:
    """The cache's name for (N,) samples."""
    return _digest(b"samples" + wav.tobytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _write(path: Path, data: memoryview) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            # Without this, a file may have its name and no contents after a crash of the machine; zeros of the right
            # length would even pass for features.
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
