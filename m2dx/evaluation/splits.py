"""Divides the clips of a labelled task: given splits, or cross validation over folds, without leaking groups."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2dx.contract.components import Clip, Fold
from m2dx.contract.errors import RecipeError
from m2dx.contract.wording import counted
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


def _overlaps(clips: Sequence[Clip]) -> Iterator[tuple[str, set[str]]]:
    """Of the clips of one file, by their start: each that overlaps an earlier one of another split."""
    earlier: dict[str, tuple[float, Clip]] = {}  # of each split, the end of the clip that ends last
    for clip in clips:
        split = str(clip.split)
        for other, (end, first) in earlier.items():
            if other != split and clip.start < end - OVERLAP_SECONDS:
                yield f"the clip {first.path} at {first.start:g} s", {other, split}
        end = math.inf if clip.duration is None else clip.start + clip.duration
        if split not in earlier or earlier[split][0] < end:
            earlier[split] = (end, clip)


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
    train = rows["train"]
    parts = (train, rows["valid"]) if "valid" in rows else hold_out(train, clips, targets)
    return Fold("test", *parts, rows["test"])


def hold_out(
    train: NDArray[np.int64], clips: Sequence[Clip], targets: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation rows, from training rows: whole groups, near a tenth of each class; always the same.

    Groups are visited in a fixed random order and taken where that brings the class counts nearer to a tenth.
    Raises RecipeError where all training clips are of one group.
    """
    units = _whole_groups(train, clips)
    if len(units) < 2:
        raise RecipeError("without a valid split, a task needs training clips of two groups or more, not one")
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


def inner_folds(clips: Sequence[Clip]) -> tuple[NDArray[np.int64], str]:
    """The inner fold (n,) of each training clip, with the same share of every class, and what is held out together.

    Those are groups, or files where no group is known. A group whose classes no other one has is divided into its
    files: nothing could be learned of a class that is held out as a whole.
    """
    owners: dict[str | None, set[str | None]] = defaultdict(set)
    for clip in clips:
        for label in clip.labels or (None,):
            owners[label].add(clip.group)
    shared = {clip.group for clip in clips for label in clip.labels or (None,) if len(owners[label]) > 1}
    divided = {clip.group for clip in clips} - shared - {None}
    dealt = [replace(clip, group=None) if clip.group in divided else clip for clip in clips]
    count = min(INNER_FOLDS, len({(clip.group, clip.group or clip.path) for clip in dealt}))
    held_out = "files" if all(clip.group is None for clip in dealt) else "groups"
    if divided and held_out == "groups":
        held_out += f", and the files of {counted(len(divided), 'group')} with classes of its own"
    return deal(dealt, [1 / count] * count), held_out


def _whole_groups(rows: Iterable[int], clips: Sequence[Clip]) -> list[NDArray[np.int64]]:
    """What stays together: groups, and files where no group is known; the clips of a single file, each by itself."""
    units: dict[tuple[str, object], list[int]] = defaultdict(list)
    for row in rows:
        clip = clips[row]
        units[("file", clip.path) if clip.group is None else ("group", clip.group)].append(row)
    if len(units) == 1 and "file" in next(iter(units)):
        return [np.array([row]) for row in next(iter(units.values()))]
    return [np.array(unit, dtype=np.int64) for unit in units.values()]


def _fold_order(name: str) -> tuple[bool, int, str]:
    return (False, int(name), name) if name.isdecimal() else (True, 0, name)
