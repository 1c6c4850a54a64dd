"""Reads audio files: any format of soundfile, any rate and channel count, only the segment that is needed."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.data.clips import ClipList
from m2dx.data.containers import find_info, find_member
from m2dx.data.decoding import TOLERANCE_SECONDS, Decoder, reason_of
from m2dx.data.pcm import HEADER_BYTES, AudioInfo, PlainWav, StoredSamples, float_samples, plain_wav

LOWEST_RATE, HIGHEST_RATE, MOST_CHANNELS = 100, 1_000_000, 256
PIECE_SECONDS = 60  # audio that is held at a time where a file is read in pieces, or half of it
_PIECE_SAMPLES = 2**24  # the same, of all channels


class AudioFile(AbstractContextManager["AudioFile"]):
    """An open audio file, also one within a shard of a pack. Use it in a `with` statement.

    Raises `AudioError`, with the reason only (the caller knows the path), for a file that is missing, unreadable,
    of unknown format, empty, or truncated. A header that tells no length, or another than whole frames have, is
    passed over (`m2dx.data.headers`). A FLAC or MP3 file that was cut is found when a read reaches the gap.
    """

    def __init__(self, path: Path | str) -> None:
        path = os.fspath(path)
        self._member = find_member(path)  # held: it keeps its shard open
        with ExitStack() as opened:
            try:
                self._source = self._open(path, opened)
            except OSError as error:
                raise AudioError(reason_of(error, "cannot be opened")) from error
            self.info = self._source.info
            rate, channels = self.info.sample_rate, self.info.channels
            if not (LOWEST_RATE <= rate <= HIGHEST_RATE and channels <= MOST_CHANNELS):
                raise AudioError(
                    f"{rate:,} Hz and {channels:,} channels, which is no audio "
                    f"({LOWEST_RATE} Hz to {HIGHEST_RATE / 1e6:g} MHz, up to {MOST_CHANNELS} channels)"
                )
            self._opened = opened.pop_all()

    def _open(self, path: str, opened: ExitStack) -> PlainWav | Decoder:
        member, plain = self._member, None
        size = _regular_file_bytes(path) if member is None else member.size
        if path.lower().endswith(".wav"):
            if member is None:
                descriptor, first = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), 0
                opened.callback(os.close, descriptor)
            else:
                member.check(member.first, min(size, HEADER_BYTES))
                descriptor, first = member.descriptor, member.first
            plain = plain_wav(descriptor, first, size)
        if plain is not None:
            return plain
        decoder = Decoder(path if member is None else member.open(), size)
        opened.callback(decoder.close)
        return decoder

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the reading."""
        self._opened.close()

    def extent(self, start: float, duration: float | None) -> tuple[int, int]:
        """First frame and number of frames of a segment given in seconds.

        Raises `AudioError` when it starts past the end, or ends past it by more than `TOLERANCE_SECONDS`.
        """
        rate, total = self.info.sample_rate, self.info.frames
        if not (math.isfinite(start) and 0 <= (first := round(start * rate)) < total):
            raise AudioError(f"start ({start:g} s) must be within the file, of {self.info.seconds:.3f} s")
        if duration is None:
            return first, total - first
        if not 0 < duration < math.inf:
            raise AudioError(f"duration ({duration:g} s) must be above 0, and finite")
        frames = max(1, round(duration * rate))
        if first + frames > total + math.ceil(TOLERANCE_SECONDS * rate):
            raise AudioError(
                f"truncated: listed to {start + duration:.3f} s, but the file ends at {self.info.seconds:.3f} s"
            )
        return first, min(frames, total - first)

    def read(self, first: int, frames: int, *, sample_rate: int) -> NDArray[np.float32]:
        """(N,) mono samples at `sample_rate` of the segment, channels averaged.

        Raises `AudioError` for samples that cannot be decoded, end too early, or are NaN or infinite.
        """
        return float_samples(self.read_stored(first, frames, sample_rate=sample_rate))

    def read_stored(self, first: int, frames: int, *, sample_rate: int) -> StoredSamples:
        """As `read`; int16 where the file is mono 16-bit PCM at `sample_rate`."""
        samples = self._stored(first, frames)
        if self.info.sample_rate == sample_rate:
            return np.ascontiguousarray(samples)
        mono = soxr.resample(float_samples(samples), self.info.sample_rate, sample_rate)
        if not len(mono):
            raise AudioError(f"too short: {len(samples)} samples give none at {sample_rate} Hz")
        return np.ascontiguousarray(mono, dtype=np.float32)

    def pieces(self, first: int, frames: int, *, sample_rate: int) -> Iterator[NDArray[np.float32]]:
        """What `read` gives, to the bit, a minute or two at a time."""
        rate, end = self.info.sample_rate, first + frames
        step = min(PIECE_SECONDS * rate, _PIECE_SAMPLES // self.info.channels)
        resampler = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1)
        total = 0
        while first < end:
            last = end - first <= 2 * step  # so long that its end cannot be missing within the tolerance
            samples = float_samples(self._stored(first, end - first if last else step))
            if resampler is not None:
                samples = resampler.resample_chunk(samples, last=last)
            if len(samples):
                yield samples
            first, total = end if last else first + step, total + len(samples)
        if not total:
            raise AudioError(f"too short: {frames} samples give none at {sample_rate} Hz")

    def _stored(self, first: int, frames: int) -> StoredSamples:
        if self._member is not None and isinstance(self._source, PlainWav):
            self._member.check(self._source.first_byte + 2 * first, 2 * frames)
        try:
            samples = self._source.read(first, frames)
        except OSError as error:
            raise AudioError(reason_of(error, "truncated or corrupt")) from error
        if frames - len(samples) > TOLERANCE_SECONDS * self.info.sample_rate or not len(samples):
            have = (first + len(samples)) / self.info.sample_rate
            promised = f"{self.info.seconds:.3f} s promised"
            raise AudioError(f"truncated: {promised}, but decoding ends at {have:.3f} s")
        return samples


def probe(path: Path | str) -> AudioInfo:
    """Rate, length and channels of an audio file; raises `AudioError` as `AudioFile` does."""
    info = find_info(os.fspath(path))
    if info is not None:
        return info
    with AudioFile(path) as file:
        return file.info


def read_wav(
    path: Path | str, *, start: float = 0.0, duration: float | None = None, sample_rate: int | None = None
) -> NDArray[np.float32]:
    """(N,) mono samples at `sample_rate` (None: the file's own) of a file, or of a segment of it in seconds.

    Raises `AudioError`, whose text is the reason without the path, for anything that cannot be used as audio.
    """
    with AudioFile(path) as file:
        first, frames = file.extent(start, duration)
        return file.read(first, frames, sample_rate=sample_rate or file.info.sample_rate)


def audio_seconds(path: Path | str) -> float:
    """Length of an audio file, from its header; raises `AudioError` as `AudioFile` does."""
    return probe(path).seconds


def seconds_of_some(clips: Sequence[Clip] | ClipList, most: int) -> list[float]:
    """Lengths of clips to the ends of their files, s, by the headers of `most` of them, evenly spread.

    Files that cannot be read are left out; a training names them.
    """
    count, found = min(len(clips), most), []
    for clip in (clips[number * len(clips) // count] for number in range(count)):
        with suppress(AudioError):
            found.append(max(audio_seconds(clip.path) - clip.start, 0.0))
    return found


def _regular_file_bytes(path: str) -> int:
    """Size of the file; refuses what cannot be audio before it is opened (a FIFO would block)."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise AudioError("missing: no such file") from None
    except (OSError, ValueError) as error:
        raise AudioError(reason_of(error, "cannot be opened")) from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError("not a regular file")
    if not os.access(path, os.R_OK):
        raise AudioError("no permission to read it")
    if status.st_size == 0:
        raise AudioError("empty: 0 bytes")
    return status.st_size
