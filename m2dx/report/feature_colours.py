"""Features as colours: the first three principal components of patches as red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SPREAD = 2.0  # standard deviations from the middle to full colour


def feature_colours(states: Sequence[NDArray[np.floating]]) -> list[NDArray[np.float64]]:
    """Colours (N, 3) in [0, 1] of the features (N, D) of the same N patches in each state of a model.

    Patches of like features have like colours. Principal components are known up to their signs, and turn into each
    other where they are about equally large; so each state is turned to the next one (orthogonal Procrustes), from
    the last one back, to keep colours from changing by chance alone.
    """
    whitened = [components(features) for features in states]
    for index in range(len(whitened) - 2, -1, -1):
        left, _, right = np.linalg.svd(whitened[index].T @ whitened[index + 1])
        whitened[index] = whitened[index] @ (left @ right)
    return [np.clip(0.5 + 0.5 * scores / _SPREAD, 0.0, 1.0) for scores in whitened]


def components(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """The first three principal components (N, 3) of features (N, D), each of variance 1; zeros for those not there."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    scores = np.zeros((len(features), 3))
    count = int((values[:3] > 1e-6 * max(float(values[0]), 1e-12)).sum())
    scores[:, :count] = left[:, :count] * np.sqrt(len(features))
    return scores
