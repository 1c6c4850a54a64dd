"""What one pass over a recording measures: level, silence, clipping, offset, hum, the edge of its band, its noise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from m2dx.data.reading import AudioFile
from m2dx_specialise.listing import Clip
from m2dx_specialise.sketches import Moments, moments_of, spectra

SILENT_DB = -70.0  # Full-scale level of the loudest frame, below which a clip is silent
FRAME_SECONDS = 0.032
_FLAT_RUN = 3  # equal samples at the peak: clipped
_SPECTRUM = 2048  # samples of a frame whose spectra are averaged
_HUM_SECONDS = 1.0
_EDGE_DB = 20.0  # what a spectrum falls by at the edge of a band
_NEVER = -200.0  # dB, of digital silence


@dataclass(frozen=True)
class Measures:
    """One clip, measured; levels in dB of full scale. NaN: cannot be told."""

    sample_rate: int  # Hz, of the file
    channels: int
    format: str  # such as "WAV PCM_16"; "other" of files that only m2dx opens
    digest: str  # of the decoded samples
    silent: bool  # whether there is nothing to hear
    level_db: float  # of all
    floor_db: float  # of the quiet frames, where there are any well below the loud ones
    clipped: float  # share of the samples in flat peaks
    offset: float  # mean of the samples, of full scale
    edge_hz: float  # where the band ends, at half the sampling rate where it does not end before
    hum_db: float  # how far 50 or 60 Hz and their harmonics stand out
    hum_hz: float  # 50 or 60


@lru_cache(maxsize=64)  # the clips of a file follow each other
def container_of(path: Path) -> tuple[int, int, str]:
    """Rate, channels and format of a file."""
    try:
        info = soundfile.info(str(path))
        return info.samplerate, info.channels, f"{info.format} {info.subtype}"
    except (soundfile.SoundFileError, OSError):
        with AudioFile(path) as file:
            return file.info.sample_rate, file.info.channels, "other"


def measure(clip: Clip, total: float) -> tuple[Measures, Moments]:
    """Reads a clip of a listing of so many seconds, up to a minute or two at a time. Raises AudioError."""
    container = container_of(clip.path)
    rate = container[0]
    size = max(int(FRAME_SECONDS * rate), 16)
    digest = hashlib.blake2b(f"{rate}".encode(), digest_size=16)
    count, sum_, peak, flat, hum = 0, 0.0, 0.0, 0, (np.nan, np.nan)
    powers: list[NDArray[np.float32]] = []
    spectrum = np.zeros(_SPECTRUM // 2 + 1)
    moments: list[Moments] = []
    with AudioFile(clip.path) as file:
        first, frames = file.extent(clip.start, clip.duration)
        for wav in file.pieces(first, frames, sample_rate=rate):
            moments.append(moments_of(wav, rate, count / rate, total))
            digest.update(np.round(wav * 32767).astype(np.int32).tobytes())
            count += len(wav)
            sum_ += float(wav.sum(dtype=np.float64))
            peak = max(peak, float(np.abs(wav).max()))
            flat += flat_samples(wav)
            hum = hum if powers else _hum(wav, rate)
            whole = wav[: len(wav) // size * size] if len(wav) >= size else np.pad(wav, (0, size - len(wav)))
            powers.append(np.square(whole).reshape(-1, size).mean(1))
            padded = np.pad(wav, (0, max(_SPECTRUM - len(wav), 0)))
            spectrum += sum((np.abs(of) ** 2).sum(0) for of in spectra(padded, _SPECTRUM, _SPECTRUM // 2))
    db = 10 * np.log10(np.concatenate(powers) + 1e-20)
    heard = db[db > _NEVER + 60]  # padding with zeros says nothing about a noise floor
    loud = float(db.max())
    quiet = float(np.percentile(heard, 5)) if len(heard) >= 8 else np.nan
    found = Measures(
        *container,
        digest=digest.hexdigest(),
        silent=loud < SILENT_DB,
        level_db=10 * float(np.log10(np.mean(10 ** (db / 10)) + 1e-20)),
        floor_db=quiet if loud - quiet > 25 else np.nan,
        clipped=flat / max(count, 1) if peak > 0.2 else 0.0,
        offset=sum_ / max(count, 1),
        edge_hz=_edge(spectrum, rate),
        hum_db=hum[0],
        hum_hz=hum[1],
    )
    seconds, pictures = ([getattr(of, name) for of in moments] for name in ("seconds", "pictures"))
    return found, Moments(np.concatenate(seconds), np.concatenate(pictures))


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
