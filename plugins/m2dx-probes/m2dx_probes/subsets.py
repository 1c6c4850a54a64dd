"""Small labelled parts of a training part: nested, stratified, and group after group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from m2dx.contract.components import Clip, Fold
from m2dx.contract.errors import RecipeError
from m2dx.evaluation.splits import hold_out, whole_groups

OFFERED = 3
"""Of so many groups that are left, one is looked at, so that draws differ."""


def labelling_order(
    rows: NDArray[np.int64], clips: Sequence[Clip], targets: NDArray[np.float32], seed: int
) -> NDArray[np.int64]:
    """The rows in an order whose first n are n labels: groups one after the other, classes in their shares.

    As someone labels who goes through recordings, patients or devices: of a random third of the groups that are left,
    the next one is that which brings the class counts nearest to the shares of the whole part (targets (n, C) are
    multi-hot). Where no group is known, that is a file. All that is random follows the seed.
    """
    random = np.random.default_rng(seed)
    units = whole_groups(random.permutation(rows), clips)
    counts = np.stack([targets[unit].sum(0) for unit in units]).astype(np.float64)  # (groups, C)
    shares, have, left = counts.sum(0) / len(rows), np.zeros(targets.shape[1]), list(range(len(units)))
    sizes, order, taken = np.array([len(unit) for unit in units]), list[int](), 0
    while left:
        offered = random.permutation(len(left))[: -(-len(left) // OFFERED)]
        units_offered = np.array(left)[offered]
        wanted = shares * (taken + sizes[units_offered, None])  # (offered, C)
        nearest = int(np.square(have + counts[units_offered] - wanted).sum(1).argmin())
        chosen = left.pop(int(offered[nearest]))
        have, taken = have + counts[chosen], taken + int(sizes[chosen])
        order += units[chosen].tolist()
    return np.array(order, dtype=np.int64)


def subset_fold(
    fold: Fold, size: int, clips: Sequence[Clip], targets: NDArray[np.float32], seed: int
) -> Fold:
    """The fold with `size` labels for training and validation, of which about a tenth validates, and the same test.

    Whole groups are held out for validation; single clips, where the labels are all of one group.
    """
    labelled = np.sort(labelling_order(fold.fitted, clips, targets, seed)[:size])
    try:
        train, valid = hold_out(labelled, clips, targets)
    except RecipeError:
        train, valid = labelled[:-1], labelled[-1:]
    return Fold(fold.name, train, valid, fold.test)
