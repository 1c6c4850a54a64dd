"""What becomes a member of a pack: a part of a file, as bytes."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from m2dx.contract.errors import AudioError
from m2dx.data.decoding import Decoder, reason_of
from m2dx.data.pcm import STEP, AudioInfo, StoredSamples, check_scale, float_samples
from m2dx.data.reading import AudioFile
from m2dx_pack.reading import find_member

_MARGIN = 2  # frames, since lists round ends differently
_LONGEST_SUFFIX = 8  # characters; longer suffixes are no formats, and names in tar files are limited

Format = Literal["flac", "wav", "keep"]
Extent = tuple[float, float | None]
"""Start and duration of a clip, s; None: to the end of the file."""


@dataclass(frozen=True)
class Segment:
    """The part of a file that becomes a member. It starts on a whole second, so that clips keep their milliseconds."""

    path: str
    start: int  # seconds
    end: float | None  # seconds; None: to the end of the file
    extents: tuple[Extent, ...]  # of its clips, each once


@dataclass(frozen=True)
class Encoded:
    """A member, or the reasons why there is none."""

    content: bytes  # empty: all clips of the segment are unusable
    suffix: str  # without the dot
    info: AudioInfo | None = None  # of the member
    bad: tuple[tuple[Extent, str], ...] = ()  # unusable clips and the reasons
    rounded: bool = False  # samples were rounded to 16-bit PCM
    clipped: bool = False  # samples were beyond full scale, and were clipped
    state: list[object] = field(default_factory=list)  # of the file, before it was read


def encode(segment: Segment, *, form: Format, sample_rate: int | None) -> Encoded:
    """The member of a segment: mono 16-bit FLAC or WAV at `sample_rate` (None: the file's own), or the file as it is.

    Clips that training would refuse are in `bad`; unusable audio raises nothing.
    """
    suffix = _suffix(segment.path) if form == "keep" else form
    try:
        with AudioFile(segment.path) as file:
            bad = _bad_extents(file, segment)
            if len(bad) == len(segment.extents):
                return Encoded(b"", suffix, bad=bad)
            if form == "keep":
                return Encoded(_content(segment.path), suffix, file.info, bad)
            rate, last = file.info.sample_rate, file.info.frames
            if segment.end is not None:
                last = min(last, math.ceil(segment.end * rate) + _MARGIN)
            first = segment.start * rate
            samples = file.read_stored(first, last - first, sample_rate=sample_rate or rate)
        stored, clipped = _to_16_bit(samples)
        content = _encoded(stored, sample_rate or rate, form)
    except AudioError as error:
        return Encoded(b"", suffix, bad=tuple((extent, str(error)) for extent in segment.extents))
    info = AudioInfo(sample_rate or rate, len(stored), 1)
    return Encoded(content, suffix, info, bad, samples.dtype != np.int16, clipped)


def _suffix(path: str) -> str:
    suffix = Path(path).suffix.lower().lstrip(".")
    return suffix if suffix.isalnum() and len(suffix) <= _LONGEST_SUFFIX else ""


def _bad_extents(file: AudioFile, segment: Segment) -> tuple[tuple[Extent, str], ...]:
    bad = []
    for extent in segment.extents:
        try:
            file.extent(*extent)
        except AudioError as error:
            bad.append((extent, str(error)))
    return tuple(bad)


def _content(path: str) -> bytes:
    """A file's bytes. Raises AudioError if they cannot be decoded without the file's name."""
    member = find_member(path)
    try:
        content = Path(path).read_bytes() if member is None else member.open().read()
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror}") from error
    try:
        Decoder(io.BytesIO(content), len(content)).close()
    except AudioError as error:
        raise AudioError(
            f"cannot be kept, for it must be read without its name ({error}); --format flac or wav can store it"
        ) from error
    return content


def _to_16_bit(samples: StoredSamples) -> tuple[NDArray[np.int16], bool]:
    """The nearest 16-bit samples, and whether any sample was beyond full scale; AudioError of another scale."""
    if samples.dtype == np.int16:
        return samples, False  # type: ignore[return-value]
    try:
        check_scale(float_samples(samples))
    except AudioError as error:
        raise AudioError(f"{error}, or store the files as they are by --format keep") from error
    steps = np.rint(samples * np.float32(1 / STEP))
    lowest, highest = -(2**15), 2**15 - 1
    clipped = bool(((steps < lowest) | (steps > highest + 1)).any())  # a full scale of 1 is 32768
    return np.clip(steps, lowest, highest).astype(np.int16), clipped


def _encoded(samples: NDArray[np.int16], rate: int, form: str) -> bytes:
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, samples, rate, format=form.upper(), subtype="PCM_16")
    except soundfile.SoundFileError as error:  # such as a rate that FLAC lacks
        raise AudioError(reason_of(error, f"cannot be stored as {form} at {rate} Hz")) from error
    return buffer.getvalue()
