"""Divides the clips of a labelled task: given splits, or cross validation over folds, without leaking groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from m2dx.contract.components import Clip, Fold
from m2dx.contract.errors import RecipeError

SPLITS = ("train", "valid", "test")
VALID_SHARE = 0.1
"""Share of the training clips that is held out for validation where a task has no validation split."""


def divide(clips: Sequence[Clip], targets: NDArray[np.float32]) -> tuple[Fold, ...]:
    """The divisions that the clips' `split` values ask for; `targets` (n, C) are multi-hot.

    Values within train, valid, test give one division. Other values are folds: each is the test part once, the next
    one is the validation part, the rest is the training part. Where nothing is left to validate on (no valid split,
    two folds), a tenth of the training part is held out, stratified by class and without dividing a group.

    Raises RecipeError where train or test has no clips, names are mixed, or there is one fold only.
    """
    rows = _rows_by_split(clips)
    if set(rows) & {"train", "test"}:
        return (_given_split(rows, clips, targets),)
    names = sorted(rows, key=_fold_order)
    if len(names) < 2:
        raise RecipeError(
            f"`split` must be train, valid and test, or name two folds or more, but every clip has {names[0]!r}"
        )
    return tuple(_leave_out(names, number, rows, clips, targets) for number in range(len(names)))


def shared_groups(clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    """What occurs in more than one split: groups, and recordings listed twice, with the splits where they occur.

    Clips without a group only count as themselves: nothing is known about what they share.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        split = str(clip.split)
        found[f"the clip {clip.path} at {clip.start:g} s"].add(split)
        if clip.group is not None:
            found[f"group {clip.group!r}"].add(split)
    return {what: tuple(sorted(splits, key=_fold_order)) for what, splits in found.items() if len(splits) > 1}


def _rows_by_split(clips: Sequence[Clip]) -> dict[str, NDArray[np.int64]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        rows[str(clip.split)].append(row)
    return {split: np.array(members, dtype=np.int64) for split, members in rows.items()}


def _given_split(
    rows: dict[str, NDArray[np.int64]], clips: Sequence[Clip], targets: NDArray[np.float32]
) -> Fold:
    if unknown := sorted(set(rows) - set(SPLITS)):
        raise RecipeError(
            f"`split` must be train, valid or test (or, without these names, folds), but some clips have "
            f"{', '.join(map(repr, unknown))}; rename them, or leave those clips out"
        )
    if absent := [split for split in ("train", "test") if split not in rows]:
        raise RecipeError(
            f"a task needs clips with `split` {' and '.join(absent)}, but has only {', '.join(rows)}"
        )
    if "valid" in rows:
        return Fold("test", rows["train"], rows["valid"], rows["test"])
    train, valid = hold_out(rows["train"], clips, targets)
    return Fold("test", train, valid, rows["test"])


def _leave_out(
    names: list[str],
    number: int,
    rows: dict[str, NDArray[np.int64]],
    clips: Sequence[Clip],
    targets: NDArray[np.float32],
) -> Fold:
    test, following = names[number], names[(number + 1) % len(names)]
    if len(names) == 2:
        train, valid = hold_out(rows[following], clips, targets)
        return Fold(test, train, valid, rows[test])
    rest = np.concatenate([rows[name] for name in names if name not in (test, following)])
    return Fold(test, np.sort(rest), rows[following], rows[test])


def hold_out(
    train: NDArray[np.int64], clips: Sequence[Clip], targets: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation rows, from training rows: whole groups, near a tenth of each class; always the same.

    Groups are visited in a fixed random order and taken where that brings the class counts nearer to a tenth.
    Raises RecipeError where all training clips are of one group.
    """
    units = _whole_groups(train, clips)
    if len(units) < 2:
        raise RecipeError(
            "a task without a valid split needs training clips of two groups or more, but has one group"
        )
    wanted = targets[train].sum(0) * VALID_SHARE
    have = np.zeros_like(wanted)
    order = np.random.default_rng(0).permutation(len(units))
    taken: list[int] = []
    for unit in order:
        counts = targets[units[unit]].sum(0)
        if np.square(have + counts - wanted).sum() < np.square(have - wanted).sum():
            have += counts
            taken.append(int(unit))
    if not taken:  # few clips per class: any group is more than a tenth of its classes
        taken = [int(min(order, key=lambda unit: len(units[unit])))]
    valid = np.sort(np.concatenate([units[unit] for unit in taken]))
    return np.setdiff1d(train, valid), valid


def _whole_groups(rows: Iterable[int], clips: Sequence[Clip]) -> list[NDArray[np.int64]]:
    units: dict[tuple[str, object], list[int]] = defaultdict(list)
    for row in rows:
        clip = clips[row]
        units["clip" if clip.group is None else "group", row if clip.group is None else clip.group].append(
            row
        )
    return [np.array(unit, dtype=np.int64) for unit in units.values()]


def _fold_order(name: str) -> tuple[bool, int, str]:
    return (False, int(name), name) if name.isdecimal() else (True, 0, name)
