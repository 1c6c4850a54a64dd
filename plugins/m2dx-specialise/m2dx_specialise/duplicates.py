"""Clips that are the same recording: sample for sample, or re-encoded, shifted, louder, or cut out of a longer one.

Moments of two clips that look alike make the pair a candidate; then the sound itself decides. Its two versions are
aligned to the sample, by the shift at which they correlate most, and each frequency of one must be the other's, at a
constant gain and phase: the magnitude of the coherence. Two strokes of a drum, or two words of a speaker, have it at a
few frequencies only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

import m2dx
from m2dx_specialise.listing import Clip
from m2dx_specialise.measures import Measures, flat_samples
from m2dx_specialise.sketches import RATE, Moments, spectra

SIMILAR = 0.72  # least similarity of duplicates
_ALIKE = 0.7  # cosine of the pictures of two moments that may be the same
_NEIGHBOURS = 6  # of a moment
_PARTNERS, _SHIFTS = 8, 3  # of a clip that are listened to, and at how many shifts
_LONGEST = 12.0  # seconds of a clip that are compared; of longer ones, those around moments that look alike
_LEAST_SHARED, _LEAST_SECONDS = 0.3, 0.1  # of the energy of one of the two; but never more than a clip has
_FULL, _CLIPPED = 0.9, 2e-3  # of a peak: what is above may be clipped; of the samples, in flat peaks
_CORRELATED = 0.5  # at least, of what is looked at closer
_SIZE, _HOP, _BAND = 512, 128, 4
_FEW_BANDS, _STRICTER = 20, 6.0
_FLOOR_DB = 45.0  # below the loudest frequency, nothing is compared
_OCTAVES = (60, 300, 600, 1200, 2400, 4800, 7700)  # Hz; what is in both must be alike in each
_HEARD, _ALIKE_EACH = 1e-3, 0.65  # share of both energies in an octave that counts; least correlation there


Place = tuple[float, float]
"""Seconds of two clips from their starts."""


@dataclass(frozen=True)
class Duplicate:
    """Two clips, by their indices in the listing, that have a recording in common."""

    first: int
    second: int
    exact: bool  # whether the samples are the same


def find_duplicates(
    clips: Sequence[Clip], measures: Sequence[Measures | None], moments: Sequence[Moments | None]
) -> list[Duplicate]:
    """Pairs of clips with a recording in common; of several that are the same to the sample, each with the first."""
    same: dict[str, list[int]] = defaultdict(list)
    for row, found in enumerate(measures):
        if found is not None and not found.silent:
            same[found.digest].append(row)
    exact = [Duplicate(rows[0], other, True) for rows in same.values() for other in rows[1:]]
    firsts = sorted(rows[0] for rows in same.values())
    known = {row: own for row in firsts if (own := moments[row]) is not None}
    near = [
        Duplicate(first, second, False)
        for first, second, places in _candidates(known)
        if clips[first].path != clips[second].path
        and similarity(clips[first], clips[second], places) >= SIMILAR
    ]
    return [*exact, *near]


def _candidates(moments: dict[int, Moments]) -> Iterator[tuple[int, int, list[Place]]]:
    """Pairs of clips with moments that look alike, and for the shifts at which most of them do, the most alike one."""
    counts = np.array([len(found.seconds) for found in moments.values()], dtype=np.int64)
    rows = np.repeat(np.array(list(moments), dtype=np.int64), counts)
    if len(rows) < 2:
        return
    seconds = np.concatenate([found.seconds for found in moments.values()])
    pictures = _whitened(np.concatenate([found.pictures for found in moments.values()]))
    votes: dict[tuple[int, int], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    places: dict[tuple[tuple[int, int], int], tuple[float, float, float]] = {}
    for first, other, alike in _neighbours(rows, pictures):
        a, b = (first, other) if rows[first] < rows[other] else (other, first)
        shift = round(float(seconds[a] - seconds[b]) / 0.02)
        pair = int(rows[a]), int(rows[b])
        votes[pair][shift] += alike - _ALIKE + 0.1
        place = alike, float(seconds[a]), float(seconds[b])
        places[pair, shift] = max(places.get((pair, shift), place), place)
    best: dict[tuple[int, int], tuple[float, list[Place]]] = {}
    for pair, found in votes.items():
        joined = {at: vote + found.get(at - 1, 0.0) + found.get(at + 1, 0.0) for at, vote in found.items()}
        order = sorted(joined, key=lambda at: -joined[at])
        apart = [at for place, at in enumerate(order) if all(abs(at - other) > 2 for other in order[:place])]
        best[pair] = joined[order[0]], [places[pair, at][1:] for at in apart[:_SHIFTS]]
    partners: dict[int, list[tuple[float, tuple[int, int]]]] = defaultdict(list)
    for pair, (vote, _) in best.items():
        for row in pair:
            partners[row].append((vote, pair))
    kept = {pair for found in partners.values() for _, pair in sorted(found, reverse=True)[:_PARTNERS]}
    for first, second in sorted(kept):
        yield first, second, best[first, second][1]


def _whitened(pictures: NDArray[np.float16]) -> NDArray[np.float32]:
    """(K, 64) of length 1: what is common to all pictures counts little."""
    centred = pictures.astype(np.float32)
    centred -= centred.mean(1, keepdims=True)
    sample = centred[:: max(len(centred) // 20_000, 1)]
    pca = PCA(min(64, *sample.shape)).fit(sample)
    variance = pca.explained_variance_
    basis = pca.components_.T * (variance + 0.02 * variance[0]) ** -0.25
    whitened: NDArray[np.float32] = normalize((centred - pca.mean_) @ basis.astype(np.float32))
    return whitened


def _neighbours(rows: NDArray[np.int64], pictures: NDArray[np.float32]) -> Iterator[tuple[int, int, float]]:
    """For each moment those of other clips that look most like it."""
    step = max(2**24 // len(rows), 1)
    for first in range(0, len(rows), step):
        alike = pictures[first : first + step] @ pictures.T
        alike[rows[first : first + step, None] == rows] = -1.0
        count = min(_NEIGHBOURS, len(rows))
        top = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(alike, top, axis=1)
        for place, near in np.argwhere(values > _ALIKE).tolist():
            yield first + place, int(top[place, near]), float(values[place, near])


@lru_cache(maxsize=512)
def _sound(path: Path, start: float, seconds: float) -> NDArray[np.float32]:
    return m2dx.read_wav(path, start=start, duration=seconds, sample_rate=RATE)


def similarity(first: Clip, second: Clip, places: Sequence[Place]) -> float:
    """How alike two clips are where they overlap; 1: the same, 0 where they share too little.

    `places`: what may be the same moment in both. Clips that are not long are compared at all shifts.
    """
    if max(first.seconds, second.seconds) <= _LONGEST:
        places = places[:1]
    try:
        return max(_similarity(_part(first, one), _part(second, other)) for one, other in places)
    except m2dx.AudioError:
        return 0.0


def _part(clip: Clip, at: float) -> NDArray[np.float32]:
    """All samples of a clip, or of a long one those around a second of it."""
    length = min(clip.seconds, _LONGEST)
    start = min(max(at - length / 2, 0.0), clip.seconds - length)
    return _sound(clip.path, clip.start + start, length)


def _similarity(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """The same of samples, at the shift where they correlate most."""
    lag, correlation = _lag(_bright(one), _bright(two))
    if correlation < _CORRELATED:
        return 0.0
    a, b = (one[lag:], two) if lag >= 0 else (one, two[-lag:])
    size = min(len(a), len(b))
    a, b = a[:size], b[:size]
    if max(flat_samples(a), flat_samples(b)) > _CLIPPED * size:
        # What a clipped copy has lost is compared in neither.
        whole = (np.abs(a) < _FULL * np.abs(a).max()) & (np.abs(b) < _FULL * np.abs(b).max())
        a, b = a * whole, b * whole
    return _coherence(_bright(a), _bright(b))


def _bright(wav: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same with high frequencies raised, so that they count, too."""
    return np.append(wav[:1], wav[1:] - np.float32(0.9) * wav[:-1])


def _lag(one: NDArray[np.float32], two: NDArray[np.float32]) -> tuple[int, float]:
    """By how many samples the second comes later in the first where they correlate most, and how much (0 to 1).

    Only where they share enough; (0, 0.0): nowhere.
    """
    size = next_fast_len(len(one) + len(two) - 1, real=True)
    product = np.abs(irfft(rfft(one, size) * np.conj(rfft(two, size)), size))
    product = np.concatenate(
        [product[size + 1 - len(two) :], product[: len(one)]]
    )  # negative lags were at the end
    first, second = _shared(one, len(two)), _shared(two, len(one))[::-1]
    product /= np.sqrt(_energy(one) * _energy(two) * np.maximum(first * second, 1e-9)) + 1e-20
    product[np.maximum(first, second) < _LEAST_SHARED] = 0.0
    few = min(int(_LEAST_SECONDS * RATE), len(one), len(two)) - 1
    product[:few] = product[len(product) - few :] = 0.0
    best = int(product.argmax())
    return (best + 1 - len(two), float(product[best])) if product[best] > 0 else (0, 0.0)


def _shared(wav: NDArray[np.float32], other: int) -> NDArray[np.float64]:
    """How much of its energy lies under `other` samples, from where they share its first one to where its last."""
    sums = np.cumsum(np.square(wav, dtype=np.float64))
    sums /= sums[-1] + 1e-20
    shares: NDArray[np.float64] = np.append(sums, np.full(other - 1, sums[-1]))
    shares[other:] -= sums[:-1]
    return shares


def _energy(wav: NDArray[np.float32]) -> float:
    return float(np.square(wav, dtype=np.float64).sum())


def _coherence(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """Of two aligned signals: their correlation, times the root of the mean coherence of the bands that both have.

    Sounds of a few low bands are alike by themselves (heart beats, kicks): what they lack to 1 counts several times.
    """
    correlation = float(np.abs(np.dot(one, two))) / float(np.sqrt(_energy(one) * _energy(two)) + 1e-20)
    if correlation < _CORRELATED:
        return 0.0
    a, b = (np.concatenate([*spectra(np.pad(of, _SIZE // 2), _SIZE, _HOP)]) for of in (one, two))
    power, other, cross = ((np.abs(a) ** 2).sum(0), (np.abs(b) ** 2).sum(0), (a * np.conj(b)).sum(0))
    if _least_alike_octave(power, other, cross) < _ALIKE_EACH:
        return 0.0
    power, other, cross = _banded(power), _banded(other), _banded(cross)
    heard = np.minimum(power / max(power.max(), 1e-20), other / max(other.max(), 1e-20))
    weight = np.clip(10 * np.log10(heard + 1e-20) + _FLOOR_DB, 0, None)
    coherence = np.abs(cross) / np.sqrt(power * other + 1e-30)
    mean = float((coherence * weight).sum() / max(weight.sum(), 1e-9))
    bands = float(weight.sum() ** 2 / max(np.square(weight).sum(), 1e-9))
    similarity = correlation * math.sqrt(mean)
    return similarity if bands >= _FEW_BANDS else 1 - _STRICTER * (1 - similarity)


def _least_alike_octave(power: NDArray[Any], other: NDArray[Any], cross: NDArray[Any]) -> float:
    """The least correlation of two signals in an octave that both have, of their spectra and the cross spectrum.

    Two strokes of one drum share a loud tone, and none of the noise above it.
    """
    edges = [round(hertz * _SIZE / RATE) for hertz in _OCTAVES]
    octaves = [np.add.reduceat(values, edges)[:-1] for values in (power, other, cross)]
    heard = np.minimum(octaves[0] / (power.sum() + 1e-20), octaves[1] / (other.sum() + 1e-20)) > _HEARD
    alike = np.abs(octaves[2]) / np.sqrt(octaves[0] * octaves[1] + 1e-30)
    return float(alike[heard].min(initial=1.0))


def _banded(values: NDArray[Any]) -> NDArray[Any]:
    """(K,) -> (K / _BAND,), the sums over neighbouring frequencies."""
    return values[: len(values) // _BAND * _BAND].reshape(-1, _BAND).sum(1)  # type: ignore[no-any-return]
