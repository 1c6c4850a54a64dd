"""Weights that bring rare classes into each epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_SCALE = 1000.0
_SMOOTHING = 0.01  # clips
_POWER = 1 / 1.5  # of the published list; it brings the weights nearer to each other


def sampling_weights(labels: Sequence[tuple[str, ...]]) -> list[float]:
    """A weight for each clip: the sum over its labels of 1000 / (clips with that label + 0.01), to the power 1/1.5.

    The sum is the weighted sampling of AS2M (M2D-X, IV-B, as in Audio-MAE, which has it from AST: Gong et al., 2021);
    the power is that of the list published with M2D.
    """
    clips = Counter(labels)  # few combinations come again and again in 2 M clips
    with_label: Counter[str] = Counter()
    for combination, times in clips.items():
        for label in combination:
            with_label[label] += times
    weights = {
        combination: sum(_SCALE / (with_label[label] + _SMOOTHING) for label in combination) ** _POWER
        for combination in clips
    }
    return [weights[combination] for combination in labels]
