"""What one pass over a recording measures: level, silence, clipping, offset, hum, the edge of its band, its noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from m2dx.data.reading import AudioFile
from m2dx_specialise.listing import Clip

SILENT_DB = -70.0
"""Full-scale level of the loudest frame, below which a clip is silent."""
FRAME_SECONDS = 0.032
_FLAT_RUN = 3  # equal samples at the peak: clipped
_SPECTRUM = 2048  # samples of a frame whose spectra are averaged
_HUM_SECONDS = 1.0
_EDGE_DB = 20.0  # what a spectrum falls by at the edge of a band
_NEVER = -200.0  # dB, of digital silence


@dataclass(frozen=True)
class Container:
    """What the header of a file says."""

    sample_rate: int  # Hz
    channels: int
    format: str  # such as "WAV PCM_16"


@dataclass(frozen=True)
class Measures:
    """One clip, measured; levels in dB of full scale. NaN: cannot be told."""

    container: Container
    digest: str  # of the decoded samples
    peak_db: float
    level_db: float  # of all
    loudest_db: float  # of the loudest frame
    floor_db: float  # of the quiet frames, where there are any well below the loud ones
    clipped: float  # share of the samples in flat peaks
    offset: float  # mean of the samples, of full scale
    edge_hz: float  # where the band ends, at half the sampling rate where it does not end before
    hum_db: float  # how far 50 or 60 Hz and their harmonics stand out
    hum_hz: float  # 50 or 60

    @property
    def silent(self) -> bool:
        """Whether there is nothing to hear."""
        return self.loudest_db < SILENT_DB

    @property
    def band(self) -> float:
        """Share of the band that the sampling rate allows, that the recording fills."""
        return self.edge_hz / (self.container.sample_rate / 2)


def container_of(path: Path) -> Container:
    """Rate, channels and format of a file; "other" for the format of files that only m2dx opens."""
    try:
        info = soundfile.info(str(path))
        return Container(info.samplerate, info.channels, f"{info.format} {info.subtype}")
    except (soundfile.SoundFileError, OSError):
        with AudioFile(path) as file:
            return Container(file.info.sample_rate, file.info.channels, "other")


def pieces(clip: Clip) -> Iterator[NDArray[np.float32]]:
    """The samples of a clip at the rate of its file, up to a minute or two at a time. Raises AudioError."""
    with AudioFile(clip.path) as file:
        first, frames = file.extent(clip.start, clip.duration)
        yield from file.pieces(first, frames, sample_rate=file.info.sample_rate)


class Meter:
    """Measures a clip from its samples, given one piece after the other."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self._hash = hashlib.blake2b(f"{container.sample_rate}".encode(), digest_size=16)
        self._count, self._sum, self._peak, self._flat = 0, 0.0, 0.0, 0
        self._frames: list[NDArray[np.float32]] = []
        self._spectrum = np.zeros(_SPECTRUM // 2 + 1)
        self._hum = (np.nan, np.nan)

    def take(self, wav: NDArray[np.float32]) -> None:
        """The next samples (N,)."""
        rate = self.container.sample_rate
        self._hash.update(np.round(wav * 32767).astype(np.int32).tobytes())
        self._count += len(wav)
        self._sum += float(wav.sum(dtype=np.float64))
        self._peak = max(self._peak, float(np.abs(wav).max()))
        self._flat += flat_samples(wav)
        size = max(int(FRAME_SECONDS * rate), 16)
        whole = wav[: len(wav) // size * size] if len(wav) >= size else np.pad(wav, (0, size - len(wav)))
        self._frames.append(np.square(whole).reshape(-1, size).mean(1))
        if len(self._frames) == 1:
            self._hum = _hum(wav, rate)
        self._spectrum += _power(wav)

    def measures(self) -> Measures:
        """Of all that was taken."""
        frames = 10 * np.log10(np.concatenate(self._frames) + 1e-20)
        heard = frames[frames > _NEVER + 60]  # padding with zeros says nothing about a noise floor
        loud = float(frames.max())
        quiet = float(np.percentile(heard, 5)) if len(heard) >= 8 else np.nan
        return Measures(
            container=self.container,
            digest=self._hash.hexdigest(),
            peak_db=20 * float(np.log10(self._peak + 1e-10)),
            level_db=10 * float(np.log10(np.mean(10 ** (frames / 10)) + 1e-20)),
            loudest_db=loud,
            floor_db=quiet if loud - quiet > 25 else np.nan,
            clipped=self._flat / max(self._count, 1) if self._peak > 0.2 else 0.0,
            offset=self._sum / max(self._count, 1),
            edge_hz=_edge(self._spectrum, self.container.sample_rate),
            hum_db=self._hum[0],
            hum_hz=self._hum[1],
        )


def flat_samples(wav: NDArray[np.float32]) -> int:
    """Samples in runs of equal ones at the positive or the negative peak."""
    total = 0
    for peak in (wav.max(), wav.min()):
        if abs(peak) < 0.2:
            continue
        at = np.abs(wav - peak) <= 1e-4 * abs(peak)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], at, [False])).astype(np.int8)))
        runs = edges[1::2] - edges[::2]
        total += int(runs[runs >= _FLAT_RUN].sum())
    return total


def _power(wav: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K,) power of half-overlapping frames, summed."""
    if len(wav) < _SPECTRUM:
        wav = np.pad(wav, (0, _SPECTRUM - len(wav)))
    window = np.hanning(_SPECTRUM).astype(np.float32)
    total = np.zeros(_SPECTRUM // 2 + 1)
    frames = np.lib.stride_tricks.sliding_window_view(wav, _SPECTRUM)[:: _SPECTRUM // 2]
    for first in range(0, len(frames), 256):
        spectra = np.fft.rfft(frames[first : first + 256] * window)
        total += (spectra.real**2 + spectra.imag**2).sum(0)
    return total


def _edge(power: NDArray[np.float64], rate: int) -> float:
    """Where the spectrum falls off a cliff to next to nothing above: an upsampled or coded recording."""
    db = 10 * np.log10(power / max(power.max(), 1e-20) + 1e-13)
    size = len(db)
    width = max(size // 64, 4)
    step = max(size // 32, 8)
    smooth = np.convolve(np.pad(db, width, mode="edge"), np.ones(2 * width + 1) / (2 * width + 1), "valid")
    highest = np.maximum.accumulate(smooth[::-1])[::-1]  # of all above a frequency
    falls = np.full(size, -np.inf)
    falls[step : size - step] = smooth[: size - 2 * step] - highest[2 * step :]
    nyquist = rate / 2
    at = int(falls[size // 16 :].argmax()) + size // 16 if size > 64 else 0
    if falls[at] < _EDGE_DB or at > 0.93 * size or highest[min(at + step, size - 1)] > -45:
        return nyquist
    return nyquist * at / (size - 1)


def _hum(wav: NDArray[np.float32], rate: int) -> tuple[float, float]:
    """How far (dB) 50 or 60 Hz and harmonics stand out of what is beside them in the quiet part, and which it is."""
    if len(wav) < _HUM_SECONDS * rate or rate < 1000:
        return np.nan, np.nan
    size = int(_HUM_SECONDS * rate)
    starts = range(0, len(wav) - size + 1, max(size // 2, 1))
    levels = [float(np.square(wav[first : first + size]).mean()) for first in starts]
    heard = [place for place, level in enumerate(levels) if level > 1e-12]
    if not heard:
        return np.nan, np.nan
    first = starts[min(heard, key=lambda place: levels[place])]
    spectrum = np.abs(np.fft.rfft(wav[first : first + size] * np.hanning(size).astype(np.float32)))
    db = 20 * np.log10(spectrum[: round(500 * _HUM_SECONDS)] + 1e-9)
    found = []
    for base in (50, 60):
        lines = []
        for line in range(base, 400, base):
            at = round(line * _HUM_SECONDS)
            beside = np.concatenate([db[at - 14 : at - 4], db[at + 5 : at + 15]])
            lines.append(float(db[at - 1 : at + 2].max() - np.percentile(beside, 75)))
        found.append((sorted(lines)[-3], float(base)))  # three lines stand out by as much
    return max(found)
