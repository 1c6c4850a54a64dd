"""16-bit PCM: samples as they are stored, read without a decoder where a WAV file is plain, and as float32."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from m2dx.contract.errors import AudioError
from m2dx.data.logmel import LOUDEST

STEP = 2.0**-15
"""What one step of 16-bit PCM is in float32, whose full scale is 1; a power of two, so that the product is exact."""
StoredSamples = NDArray[np.float32 | np.int16]
"""Samples as a file has them: int16 stands for the float32 of `STEP` times as much."""

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")  # RIFF, WAVE, a format chunk of 16 bytes, the head of the data
HEADER_BYTES = _HEADER.size
_PCM = 1  # the format tag


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    sample_rate: int  # Hz
    frames: int  # samples per channel; for MP3 without a length tag this may be an estimate
    channels: int

    @property
    def seconds(self) -> float:
        """Length of the file."""
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class PlainWav:
    """Where the samples of a mono 16-bit WAV file are, whose header is the usual 44 bytes."""

    descriptor: int  # of the open file
    first_byte: int  # of the samples
    info: AudioInfo

    def read(self, first: int, frames: int) -> NDArray[np.int16]:
        """(N,) samples; fewer where the file has become shorter. Raises OSError."""
        samples = np.empty(min(frames, self.info.frames - first), dtype=np.int16)
        view, place = samples.view(np.uint8).data, self.first_byte + 2 * first
        done = 0
        while done < len(view):
            count = os.preadv(self.descriptor, [view[done:]], place + done)
            if count == 0:
                break
            done += count
        return samples[: done // 2]


def plain_wav(descriptor: int, start: int, size: int) -> PlainWav | None:
    """The WAV file in `size` bytes from `start` on of an open file; None where it is anything but plain and whole."""
    if not hasattr(os, "preadv") or sys.byteorder != "little":
        return None
    head = os.pread(descriptor, min(_HEADER.size, size), start)
    if len(head) < _HEADER.size or not head.startswith(b"RIFF"):
        return None
    _, _, wave, fmt, fmt_size, tag, channels, rate, _, align, bits, data, data_size = _HEADER.unpack(head)
    plain = (wave, fmt, fmt_size, tag, channels, align, bits, data) == (
        b"WAVE", b"fmt ", 16, _PCM, 1, 2, 16, b"data"
    )  # fmt: skip
    whole = 0 < data_size <= size - _HEADER.size and data_size % 2 == 0
    if not (plain and whole and rate):
        return None
    end = _HEADER.size + data_size
    # Not beyond the file: in a shard, the padding of the tar file follows.
    if end < size and not _is_chunk(os.pread(descriptor, min(4, size - end), start + end)):
        return None
    return PlainWav(descriptor, start + _HEADER.size, AudioInfo(rate, data_size // 2, 1))


def _is_chunk(name: bytes) -> bool:
    """Whether these bytes after the data are the name of a chunk, or the end of the file."""
    return len(name) < 4 or all(32 <= byte < 127 for byte in name)


def float_samples(samples: StoredSamples) -> NDArray[np.float32]:
    """float32 samples, bit for bit those that libsndfile gives for 16-bit PCM."""
    if samples.dtype == np.float32:
        return samples  # type: ignore[return-value]
    return np.multiply(samples, np.float32(STEP), dtype=np.float32)


def float_tensor(samples: Tensor) -> Tensor:
    """The same of a tensor, on its device."""
    return samples if samples.dtype != torch.int16 else samples.to(torch.float32).mul_(STEP)


def stack(rows: Sequence[Tensor]) -> Tensor:
    """(B, ...), samples as int16 if all are, else as float32. In a worker, in shared memory if there is room."""
    if any(row.dtype != torch.int16 for row in rows):
        rows = [float_tensor(row) for row in rows]
    try:
        stacked: Tensor = default_collate(list(rows))
        return stacked
    except RuntimeError:  # /dev/shm is full
        return torch.stack(list(rows))


def check_scale(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples (N,), for an encoder that is there; AudioError where they are above `LOUDEST`.

    A training brings samples of any scale to mean 0 and variance 1; an encoder has learnt one scale.
    """
    peak = max(samples.max(), -samples.min(), key=float)
    if peak > LOUDEST:
        raise AudioError(f"samples up to {peak:g}, where full scale is 1; divide those of 16 bits by 32768")
    return samples
