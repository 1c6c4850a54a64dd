"""Divides the clips of a labelled task: given splits, or cross validation over folds, without leaking groups."""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2dx.contract.components import Clip, Fold
from m2dx.contract.errors import RecipeError
from m2dx.contract.wording import counted
from m2dx.data.csv_list import SPLITS as NAMES_OF_SPLITS
from m2dx.data.division import deal

SPLITS = ("train", "valid", "test")
OVERLAP_SECONDS = 1e-3  # segments of one file that share less are apart: times in lists are rounded
VALID_SHARE = 0.1
"""Share of the training clips that is held out for validation where a task has no validation split."""
INNER_FOLDS = 3  # parts of the training clips that are held out in turn to choose a penalty


def divide(clips: Sequence[Clip], targets: NDArray[np.float32]) -> tuple[Fold, ...]:
    """The divisions that the clips' `split` values ask for; `targets` (n, C) are multi-hot.

    Values within train, valid, test give one division. Other values are folds: each is the test part once, and all
    others are the training part, as in the published evaluation. Where there is no valid split, a tenth of the training
    part is held out for validation, stratified by class and without dividing a group.

    Raises RecipeError where train or test has no clips, names are mixed, or there is one fold only.
    """
    by_split: dict[str, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        by_split[str(clip.split)].append(row)
    rows = {split: np.array(members, dtype=np.int64) for split, members in by_split.items()}
    if set(rows) & {"train", "test"}:
        return (_given_split(rows, clips, targets),)
    names = sorted(rows, key=_fold_order)
    if {name.lower() for name in names} <= {"true", "false", "yes", "no"}:
        raise RecipeError(
            f"`split` must say which clips are train, valid and test, or name folds, but has {', '.join(names)}"
        )
    if any(name.lower() in NAMES_OF_SPLITS for name in names):
        raise RecipeError(
            f"`split` must be train, valid and test, or name folds, but has {', '.join(map(repr, names))}; which is "
            "which? Rename what is none of the three, or leave those clips out"
        )
    if len(names) < 2:
        raise RecipeError(
            f"`split` must be train, valid and test, or name two folds or more, but every clip has {names[0]!r}"
        )

    def others(test: str) -> NDArray[np.int64]:
        return np.sort(np.concatenate([members for name, members in rows.items() if name != test]))

    return tuple(Fold(name, *hold_out(others(name), clips, targets), rows[name]) for name in names)


def shared_groups(clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    """What occurs in more than one split: groups, and segments of one file that overlap, with the splits.

    Files are told apart by where their paths lead, not by how they are written. Clips without a group only count as
    themselves: nothing else is known about what they share.
    """
    found: dict[str, set[str]] = defaultdict(set)
    by_file: dict[str, list[Clip]] = defaultdict(list)
    real: dict[Path, str] = {}
    for clip in clips:
        if clip.path not in real:
            real[clip.path] = os.path.realpath(clip.path)
        by_file[real[clip.path]].append(clip)
        if clip.group is not None:
            found[f"group {clip.group!r}"].add(str(clip.split))
    for members in by_file.values():
        for what, splits in _overlaps(sorted(members, key=lambda clip: clip.start)):
            found[what] |= splits
    return {what: tuple(sorted(splits, key=_fold_order)) for what, splits in found.items() if len(splits) > 1}


def shared_clips(tested: Sequence[Clip], others: Iterable[Clip]) -> list[str]:
    """The tested clips that are among others, whole or in part, whatever their paths are called."""
    names = {clip.path.name for clip in tested}  # of millions of others, most are told apart by these
    known = [replace(clip, group=None, split="others") for clip in others if clip.path.name in names]
    return list(shared_groups([*(replace(clip, group=None, split="tested") for clip in tested), *known]))


def _overlaps(clips: Sequence[Clip]) -> Iterator[tuple[str, set[str]]]:
    """Of the clips of one file, by their start: each that overlaps an earlier one of another split."""
    earlier: dict[str, tuple[float, Clip]] = {}  # of each split, the end of the clip that ends last
    for clip in clips:
        split = str(clip.split)
        for other, (end, first) in earlier.items():
            if other != split and clip.start < end - OVERLAP_SECONDS:
                yield f"the clip {first.path} at {first.start:g} s", {other, split}
        end = _end(clip)
        if split not in earlier or earlier[split][0] < end:
            earlier[split] = (end, clip)


def _end(clip: Clip) -> float:
    return math.inf if clip.duration is None else clip.start + clip.duration


def _given_split(
    rows: dict[str, NDArray[np.int64]], clips: Sequence[Clip], targets: NDArray[np.float32]
) -> Fold:
    if unknown := sorted(set(rows) - set(SPLITS)):
        raise RecipeError(
            f"`split` must be train, valid or test (or, without these names, folds), but some clips have "
            f"{', '.join(map(repr, unknown))}; rename them, or leave those clips out"
        )
    if absent := [split for split in ("train", "test") if split not in rows]:
        raise RecipeError(f"a task needs clips with `split` {' and '.join(absent)}, not {', '.join(rows)}")
    train, test = rows["train"], rows["test"]
    if "valid" not in rows:
        return Fold("test", *hold_out(train, clips, targets), test)
    return Fold("test", train, rows["valid"], test, _sharing(rows["valid"], test, clips))


def _sharing(rows: NDArray[np.int64], test: NDArray[np.int64], clips: Sequence[Clip]) -> NDArray[np.int64]:
    """Those of the rows whose clip has its group, or some of its sound, in the test part, too."""
    real = lru_cache(maxsize=None)(os.path.realpath)
    groups, tested = {clips[row].group for row in test} - {None}, defaultdict[str, list[Clip]](list)
    for row in test:
        tested[real(clips[row].path)].append(clips[row])
    starts, ends = dict[str, list[float]](), dict[str, list[float]]()
    for path, found in tested.items():
        found.sort(key=lambda clip: clip.start)
        starts[path] = [clip.start for clip in found]
        ends[path] = list(accumulate(map(_end, found), max))  # the latest end of those that start so early

    def shares(clip: Clip) -> bool:
        path = real(clip.path)
        before = bisect_left(starts.get(path, []), _end(clip) - OVERLAP_SECONDS)
        return clip.group in groups or (before > 0 and ends[path][before - 1] - OVERLAP_SECONDS > clip.start)

    return rows[[shares(clips[row]) for row in rows]]


def hold_out(
    train: NDArray[np.int64], clips: Sequence[Clip], targets: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation rows, from training rows: whole groups, near a tenth of each class; always the same.

    Groups are visited in a fixed random order and taken where that brings the class counts nearer to a tenth, but not
    the last one of a class. Where classes are too small for that, small groups fill up a tenth of all clips. A group
    whose classes no other one has is divided into its files. Raises RecipeError where all training clips are of one
    group.
    """
    if len(whole_groups(train, clips)) < 2:
        raise RecipeError("without a valid split, a task needs training clips of two groups or more, not one")
    own, _ = _with_files([clips[row] for row in train])
    units = [train[unit] for unit in whole_groups(range(len(train)), own)]
    counts = np.stack([targets[unit].sum(0) for unit in units])
    wanted, have = targets[train].sum(0) * VALID_SHARE, np.zeros(targets.shape[1])
    left = (counts > 0).sum(0)  # groups to train on, by class
    taken: list[int] = []

    def is_last(unit: int) -> bool:
        return bool(((counts[unit] > 0) & (left == 1)).any())

    def take(unit: int) -> None:
        nonlocal have, left
        have, left = have + counts[unit], left - (counts[unit] > 0)
        taken.append(unit)

    order = np.random.default_rng(0).permutation(len(units)).tolist()
    for unit in order:
        nearer = np.square(have + counts[unit] - wanted).sum() < np.square(have - wanted).sum()
        if nearer and not is_last(unit):
            take(unit)
    order.sort(key=lambda unit: len(units[unit]))
    size, most = sum(len(units[unit]) for unit in taken), len(train) * VALID_SHARE
    for unit in order if size < most / 2 else ():
        fits = size + len(units[unit]) <= most and not (counts[unit] * have).any()
        if fits and unit not in taken and not is_last(unit):
            size += len(units[unit])
            take(unit)
    if not taken:
        take(min(order, key=is_last))
    valid = np.sort(np.concatenate([units[unit] for unit in taken]))
    return np.setdiff1d(train, valid), valid


def inner_folds(clips: Sequence[Clip]) -> tuple[NDArray[np.int64], str]:
    """The inner fold (n,) of each training clip, with the same share of every class, and what is held out together.

    Those are groups, or files where no group is known. A group whose classes no other one has is divided into its
    files: nothing could be learned of a class that is held out as a whole.
    """
    dealt, divided = _with_files(clips)
    count = min(INNER_FOLDS, len({clip.unit for clip in dealt}))
    held_out = "files" if all(clip.group is None for clip in dealt) else "groups"
    if divided and held_out == "groups":
        held_out += f", and the files of {counted(divided, 'group')} with classes of its own"
    return deal(dealt, [1 / count] * count), held_out


def _with_files(clips: Sequence[Clip]) -> tuple[list[Clip], int]:
    """The clips, without the groups whose classes no other one has; and the number of these groups."""
    owners: dict[str | None, set[str | None]] = defaultdict(set)
    for clip in clips:
        for label in clip.labels or (None,):
            owners[label].add(clip.group)
    shared = {clip.group for clip in clips for label in clip.labels or (None,) if len(owners[label]) > 1}
    divided = {clip.group for clip in clips} - shared - {None}
    return [replace(clip, group=None) if clip.group in divided else clip for clip in clips], len(divided)


def whole_groups(rows: Iterable[int], clips: Sequence[Clip]) -> list[NDArray[np.int64]]:
    """What stays together: groups, and files where no group is known; the clips of a single file, each by itself."""
    units: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        units[clips[row].unit].append(row)
    if len(units) == 1 and "file" in next(iter(units)):
        return [np.array([row]) for row in next(iter(units.values()))]
    return [np.array(unit, dtype=np.int64) for unit in units.values()]


def _fold_order(name: str) -> tuple[bool, int, str]:
    return (False, int(name), name) if name.isdecimal() else (True, 0, name)
