"""Without labels: whether two segments of a recording are found by each other. It is a check, and no verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import m2dx
from m2dx.contract.components import Fold

SEGMENT_SECONDS = 2.0  # longest segment
MOST_RECORDINGS = 500
FEWEST_RECORDINGS = 10


def segments(clips: Sequence[m2dx.Clip], *, seed: int = 0) -> m2dx.ClipTask | None:
    """The first and the last segment of recordings that are long enough; None: there are too few of them.

    The recordings are the classes; the first segments are the training part, the last ones the test part. What is
    checked is whether the nearest first segment of a last one is of the same recording.
    """
    length = min(float(np.median([clip.duration or 0.0 for clip in clips])) / 2, SEGMENT_SECONDS)
    chosen = [clip for clip in clips if (clip.duration or 0.0) >= 2 * length]
    order = np.random.default_rng(seed).permutation(len(chosen))[:MOST_RECORDINGS]
    chosen = [chosen[row] for row in np.sort(order).tolist()]
    if len(chosen) < FEWEST_RECORDINGS or length < 0.05:
        return None
    names = tuple(f"{number:04}" for number in range(len(chosen)))
    first = [replace(c, duration=length, labels=(n,), group=None) for c, n in zip(chosen, names, strict=True)]
    last = [
        replace(part, start=clip.start + (clip.duration or 0.0) - length)
        for clip, part in zip(chosen, first, strict=True)
    ]
    rows = np.arange(len(chosen))
    fold = Fold("test", rows, rows[:0], rows + len(chosen))
    return m2dx.ClipTask("segments", (*first, *last), names, (fold,), length, "pad")
