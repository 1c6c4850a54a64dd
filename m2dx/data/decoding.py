"""Decodes audio by libsndfile, and finds what it would pass over: truncated files, headers that are wrong."""

from __future__ import annotations

import errno
import functools
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from m2dx.contract.errors import AudioError
from m2dx.data.headers import Parts, Spliced, mended, reader_of
from m2dx.data.pcm import AudioInfo, StoredSamples

TOLERANCE_SECONDS = 0.1
"""A listed duration may exceed the file by this much: lists round, and lossy codecs pad or cut a frame."""
_LARGEST_SAMPLE = 1e9  # beyond this, the power spectrum of float32 overflows; no audio is that loud
_UNKNOWN_FRAMES = 2**62  # libsndfile says "unknown" with the largest integer
_STREAMED_BYTES = 0x7FF00000  # writers that cannot seek back leave such a placeholder as the size of the data
_MOST_BYTES = 4 << 30  # decoded samples that are held at a time, at most
_OGG_PAGE_BYTES = 65_307  # the largest page of the format
_EARLIER = {"MP3": 18_432}
"""By format, samples before a place that are decoded with it: frames of MP3 need bits that those before them left."""


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A file that libsndfile calls seekable, though it only goes back to the start."""

    def seekable(self) -> bool:
        return False


class Decoder:
    """An open audio file of any format of libsndfile, by path or as a binary file of `size` bytes.

    Raises `AudioError`, as `AudioFile` says.
    """

    def __init__(self, source: str | BinaryIO, size: int) -> None:
        self._source = source
        self._mended = _mended_by_path(source) if isinstance(source, str) else mended(source, size)
        self._raw: BinaryIO | None = None
        self._open()
        try:
            frames = self._file.frames
            if frames >= _UNKNOWN_FRAMES:
                frames = self._decode_to(frames)
            self.info = AudioInfo(self._file.samplerate, frames, self._file.channels)
            if self._mended is None:
                self._refuse_truncated(source, size)
            if frames <= 0:
                raise AudioError("empty: no samples")
        except BaseException:
            self.close()
            raise
        self.pcm16 = self._file.subtype == "PCM_16" and self._file.channels == 1

    def _open(self) -> None:
        source = self._source
        try:
            if self._mended is not None:
                if isinstance(source, str):
                    source = self._raw = open(source, "rb")  # noqa: SIM115 (until close)
                source = io.BufferedReader(Spliced(reader_of(source), self._mended))
            elif not isinstance(source, str):
                source.seek(0)
            self._file = soundfile.SoundFile(source)
            if self._file.subtype.startswith("DWVW"):
                self._file.__class__ = _Forward
        except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
            if self._raw is not None:
                self._raw.close()
            if isinstance(source, str) and getattr(error, "code", 0) == 2:  # "System error", without a reason
                open(source, "rb").close()
            raise AudioError(reason_of(error, "cannot be opened")) from error
        self._at = 0  # the next frame

    def close(self) -> None:
        """Ends the reading."""
        self._file.close()
        if self._raw is not None:
            self._raw.close()

    def read(self, first: int, frames: int) -> StoredSamples:
        """(N,) samples, channels averaged; int16 of mono 16-bit PCM, else float32. Fewer where the file ends early."""
        needed = frames * self.info.channels * 4
        if needed > _MOST_BYTES:
            raise AudioError(f"{needed / 2**30:.0f} GB of samples at once; cut the file into shorter ones")
        with _failing_as_audio():
            early = min(_EARLIER.get(self._file.format, 0), first)
            self._seek(first - early)
            if self.pcm16:
                samples: NDArray[np.int16] = self._file.read(frames, dtype="int16")
                self._at += len(samples)
                return samples
            decoded = self._file.read(early + frames, dtype="float32", always_2d=True)
        self._at += len(decoded)
        decoded = decoded[early:]
        if not len(decoded):
            return np.empty(0, dtype=np.float32)
        peak = max(decoded.max(), -decoded.min())  # NaN if any sample is
        if not np.isfinite(peak):
            raise AudioError("NaN or infinite samples")
        if peak > _LARGEST_SAMPLE:
            raise AudioError(f"samples up to {peak:g}, which is not audio (full scale is 1)")
        return _mono(decoded)

    def _seek(self, first: int) -> None:
        """Goes to a frame; codecs that only run forward (GSM 6.10, G.721, NMS ADPCM, DWVW) are decoded up to it."""
        if 0 < first == self._at:
            return  # after a seek, some codecs give other samples than in one go
        if self._file.seekable():
            self._at = self._file.seek(first)
            return
        if first < self._at:
            self._file.close()
            self._open()
        self._decode_to(first)

    def _decode_to(self, end: int) -> int:
        """Decodes up to a frame, or to the end of the file where that comes before it; gives the frame."""
        with _failing_as_audio():
            while self._at < end:
                passed = len(self._file.read(min(end - self._at, 65_536), dtype="float32", always_2d=True))
                if not passed:
                    break
                self._at += passed
        return self._at

    def _refuse_truncated(self, source: str | BinaryIO, size: int) -> None:
        if self._file.format == "OGG":
            with open(source, "rb") if isinstance(source, str) else nullcontext(source) as file:
                place = file.tell()
                file.seek(max(0, size - _OGG_PAGE_BYTES))
                tail = file.read()
                file.seek(place)
            if _ends_within_ogg_page(tail):
                raise AudioError("truncated: the file ends in the middle of a page")
            return
        promised = _promised_frames(self._file.extra_info, self.info.frames)
        if promised is not None and promised - self.info.frames > TOLERANCE_SECONDS * self.info.sample_rate:
            seconds = promised / self.info.sample_rate
            there = f"there are {self.info.seconds:.3f} s"
            raise AudioError(f"truncated: the header promises {seconds:.3f} s, but {there}")


@contextmanager
def _failing_as_audio() -> Iterator[None]:
    try:
        yield
    except (soundfile.SoundFileError, OSError, ValueError, MemoryError) as error:
        raise AudioError(reason_of(error, "truncated or corrupt")) from error


def _mended_by_path(path: str) -> Parts | None:
    status = os.stat(path)
    return _mended_file(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _mended_file(path: str, size: int, changed: int) -> Parts | None:
    """Once for each file: the frames of an MP3 without a length are counted, 10 ms for a minute of sound."""
    with open(path, "rb") as file:
        return mended(file, size)


def reason_of(error: Exception, fallback: str) -> str:
    """What an error of libsndfile or of the system says, after `fallback`; raises it where no file can be opened."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        raise error
    if isinstance(error, soundfile.LibsndfileError):
        text = error.error_string
    elif isinstance(error, OSError):
        text = error.strerror or ""
    else:
        text = str(error)
    text = text.strip().rstrip(".")
    return f"{fallback}: {text}" if text else fallback


def _mono(decoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, channels) -> (N,), the mean; numpy's own takes 20 times as long for two channels."""
    channels = decoded.shape[1]
    if channels == 1:
        return decoded[:, 0]
    if channels == 2:
        return (decoded[:, 0] + decoded[:, 1]) * np.float32(0.5)  # what the mean gives, bit for bit
    return decoded.mean(axis=1, dtype=np.float32)  # type: ignore[no-any-return]


def _promised_frames(log: str, frames: int) -> int | None:
    """Frames that the header promises, from libsndfile's log; None where it says nothing to the contrary.

    libsndfile shortens a cut WAV, W64, AIFF or AU file to what is there, and mentions it in its log only.
    """
    sizes = re.search(r"^ *(?:data|SSND|Data Size|riff) *: *(\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if sizes is not None:
        promised, present = int(sizes[1]), int(sizes[2])
        return round(frames * promised / present) if 0 < present < promised < _STREAMED_BYTES else None
    counts = re.search(r"frame count \d+ does not match value from 'ds64' chunk of (\d+)", log)  # RF64
    return int(counts[1]) if counts is not None else None


def _ends_within_ogg_page(tail: bytes) -> bool:
    """Whether the last page of an Ogg file is cut; libsndfile reads such a file as a shorter or empty one."""
    page = tail.rfind(b"OggS")
    if page < 0:
        return False  # trailing tags longer than a page
    segments = page + 26  # the header's last byte: how many sizes of segments follow
    if segments >= len(tail):
        return True
    table = tail[segments + 1 : segments + 1 + tail[segments]]
    return len(table) < tail[segments] or segments + 1 + len(table) + sum(table) > len(tail)
