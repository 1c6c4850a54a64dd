"""From a stretch of a file to the bytes of one member."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from torch.utils.data import Dataset

from m2dx.contract.errors import AudioError
from m2dx.data.decoding import Decoder, reason_of
from m2dx.data.packing.plan import Stretch
from m2dx.data.packs import find_member
from m2dx.data.pcm import STEP, AudioInfo, StoredSamples
from m2dx.data.reading import AudioFile

Format = Literal["flac", "wav", "keep"]
_MARGIN = 2  # frames, for lists whose ends round differently
_LONGEST_SUFFIX = 8  # characters; longer ones are no formats, and names in tar files are limited


@dataclass(frozen=True)
class Encoded:
    """One member, or why there is none."""

    content: bytes  # empty: no clip of the stretch can be used
    suffix: str  # without the dot
    info: AudioInfo | None = None  # of the member
    bad: tuple[
        tuple[tuple[float, float | None], str], ...
    ] = ()  # extents that cannot be used, and the reasons
    rounded: bool = False  # samples that were not 16-bit PCM have become so
    clipped: int = 0  # samples beyond full scale, which 16 bits cannot hold


class Members(Dataset[Encoded]):
    """The members of the stretches, by number."""

    def __init__(self, stretches: Sequence[Stretch], *, form: Format, sample_rate: int | None) -> None:
        self.stretches, self.form, self.sample_rate = stretches, form, sample_rate

    def __getitem__(self, number: int) -> Encoded:
        return encode(self.stretches[number], form=self.form, sample_rate=self.sample_rate)


def encode(stretch: Stretch, *, form: Format, sample_rate: int | None) -> Encoded:
    """The member of a stretch: mono 16-bit FLAC or WAV at `sample_rate` (None: the file's own), or the file as it is.

    What training would refuse of it is in `bad`; nothing is raised for audio that cannot be used.
    """
    suffix = _suffix(stretch.path) if form == "keep" else form
    try:
        with AudioFile(stretch.path) as file:
            bad = _bad_extents(file, stretch)
            if len(bad) == len(stretch.extents):
                return Encoded(b"", suffix, bad=bad)
            if form == "keep":
                return Encoded(_content(stretch.path), suffix, file.info, bad)
            first, frames = _frames(file, stretch)
            rate = sample_rate or file.info.sample_rate
            samples = file.read_stored(first, frames, sample_rate=rate)
        stored, clipped = _to_16_bit(samples)
        content = _encoded(stored, rate, form)
    except AudioError as error:
        return Encoded(b"", suffix, bad=tuple((extent, str(error)) for extent in stretch.extents))
    info = AudioInfo(rate, len(stored), 1)
    return Encoded(content, suffix, info, bad, samples.dtype != np.int16, clipped)


def _suffix(path: str) -> str:
    suffix = Path(path).suffix.lower().lstrip(".")
    return suffix if suffix.isalnum() and len(suffix) <= _LONGEST_SUFFIX else ""


def _bad_extents(file: AudioFile, stretch: Stretch) -> tuple[tuple[tuple[float, float | None], str], ...]:
    bad = []
    for extent in stretch.extents:
        try:
            file.extent(*extent)
        except AudioError as error:
            bad.append((extent, str(error)))
    return tuple(bad)


def _frames(file: AudioFile, stretch: Stretch) -> tuple[int, int]:
    """First frame and number of frames."""
    rate, total = file.info.sample_rate, file.info.frames
    first = stretch.begin * rate
    last = total if stretch.end is None else min(total, math.ceil(stretch.end * rate) + _MARGIN)
    return first, last - first


def _content(path: str) -> bytes:
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


def _to_16_bit(samples: StoredSamples) -> tuple[NDArray[np.int16], int]:
    """The nearest 16-bit samples, and how many were beyond full scale."""
    if samples.dtype == np.int16:
        return samples, 0  # type: ignore[return-value]
    steps = np.rint(samples * np.float32(1 / STEP))
    lowest, highest = -(2**15), 2**15 - 1
    clipped = int(np.count_nonzero((steps < lowest) | (steps > highest + 1)))  # a full scale of 1 is 32768
    return np.clip(steps, lowest, highest).astype(np.int16), clipped


def _encoded(samples: NDArray[np.int16], rate: int, form: str) -> bytes:
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, samples, rate, format=form.upper(), subtype="PCM_16")
    except soundfile.SoundFileError as error:  # such as a rate beyond what FLAC has
        raise AudioError(reason_of(error, f"cannot be stored as {form} at {rate} Hz")) from error
    return buffer.getvalue()


def gather(items: Sequence[Any]) -> list[Any]:
    """The members of one batch, as they are."""
    return list(items)
