"""What is kept of a clip to find others like it: its spectrum around the moments that stand out, whatever the level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

RATE = 16_000
HOP = 160
_SIZE = 512
BANDS = 24
_BEFORE, _AFTER, _STEP = 4, 12, 2  # frames around a moment, and of a column of its picture
_AROUND = _AFTER + 4  # silent frames before and after a piece
_RANGE_DB = 50.0  # below the loudest band of a picture, nothing is seen
_APART = 2  # frames between two moments, at least
_MOST_MOMENTS, _DENSEST, _LEAST = 200_000, 12.0, 12  # of all clips; of a second; of a clip
WIDTH = BANDS * (_BEFORE + _AFTER) // _STEP


@dataclass(frozen=True)
class Moments:
    """The moments of a clip that stand out."""

    seconds: NDArray[np.float32]  # (K,) from the start of the clip
    pictures: NDArray[np.float16]  # (K, WIDTH) log spectrum around each, 0 the loudest band, -1 out of sight


def spectra(wav: NDArray[np.float32], size: int, hop: int) -> Iterator[NDArray[Any]]:
    """Spectra (T, size / 2 + 1) of frames, some at a time."""
    frames = np.lib.stride_tricks.sliding_window_view(wav, size)[::hop]
    window = np.hanning(size).astype(np.float32)
    for first in range(0, len(frames), 512):
        yield np.fft.rfft(frames[first : first + 512] * window)


@lru_cache
def _filters() -> NDArray[np.float32]:
    """(K, BANDS) triangles, evenly spaced on the mel scale from 60 to 7,000 Hz."""
    mel = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 7000 / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = np.arange(_SIZE // 2 + 1)[:, None] * RATE / _SIZE
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def _log_bands(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, BANDS) in dB, with silence before and after."""
    padded = np.pad(sound, (_SIZE // 2, _SIZE // 2 + HOP))
    silence = np.zeros((_AROUND, BANDS), dtype=np.float32)
    bands = [(np.abs(of) ** 2).astype(np.float32) @ _filters() for of in spectra(padded, _SIZE, HOP)]
    return 10 * np.log10(np.concatenate([silence, *bands, silence]) + 1e-12)


def moments_of(wav: NDArray[np.float32], sample_rate: int, start: float, total: float) -> Moments:
    """The times where the spectrum of samples (N,) changes most, and its picture around each.

    `start`: seconds of the clip before them; `total`: seconds of all clips, of which only so many moments are kept.
    """
    bands = _log_bands(wav if sample_rate == RATE else soxr.resample(wav, sample_rate, RATE))
    per_second = min(_DENSEST, _MOST_MOMENTS / max(total, 1e-3))
    loud = bands.max(1)
    seen = np.maximum(bands, loud.max() - 60)
    change = np.zeros(len(bands), dtype=np.float32)
    change[2:-2] = np.abs(seen[4:] - seen[:-4]).mean(1)
    change = uniform_filter1d(change, 3)
    change[:_BEFORE] = change[-_AFTER:] = 0
    at = np.flatnonzero((change == maximum_filter1d(change, 2 * _APART + 1)) & (change > 0))
    most = max(int(per_second * (len(bands) - 2 * _AROUND) * HOP / RATE), _LEAST)
    at = at[np.argsort(-change[at], kind="stable")[:most]]
    if len(at) < _LEAST:  # a tone or a decay, in which nothing happens
        heard = np.flatnonzero(loud[:-_AFTER] > loud.max() - _RANGE_DB)
        at = np.union1d(at, heard[np.linspace(0, len(heard) - 1, min(_LEAST, len(heard))).astype(int)])
    at = np.sort(at)
    cut = at[:, None] + np.arange(-_BEFORE, _AFTER)
    pictures = bands[cut].reshape(len(at), (_BEFORE + _AFTER) // _STEP, _STEP, BANDS).mean(2)
    pictures = pictures.reshape(len(at), WIDTH)
    loudest = pictures.max(1, keepdims=True, initial=-np.inf)
    pictures = np.clip((pictures - loudest) / _RANGE_DB, -1, 0)
    seconds = (at - _AROUND) * HOP / RATE + start
    return Moments(seconds.astype(np.float32), pictures.astype(np.float16))
