"""A test part, or folds, for lists that have none: whole groups, the same share of every class, always the same."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from m2dx.contract.components import Clip
from m2dx.contract.errors import RecipeError
from m2dx.contract.options import Section

logger = logging.getLogger(__name__)

FoldCount = Annotated[int, Field(ge=2, le=1000)]


class Holdout(Section):
    """A test part of a list that has no splits."""

    test: Annotated[float, Field(gt=0, lt=1)]
    """Share of the clips in the test part; the others are for training."""
    by: Literal["group", "file"] = "group"
    """What stays together: clips of a group (where none is known, of a file), or of a file whatever its group."""


def divided(clips: list[Clip], name: str, *, split: Holdout | None, folds: int | None) -> list[Clip]:
    """The clips with the split "train" or "test", or with folds "1", "2", ...; as they are where neither is asked for.

    By file, the clips lose their groups, which the parts share on purpose. Raises RecipeError where both are, where
    clips have a split, or where there are fewer groups than parts.
    """
    if split is None and folds is None:
        return clips
    if split is not None and folds is not None:
        raise RecipeError(f"{name}: there can be `split` or `folds`, but both are given; leave one out")
    if given := next((clip for clip in clips if clip.split is not None), None):
        raise RecipeError(
            f"{name}: `{'split' if folds is None else 'folds'}` is for lists without splits, but {given.path} has the "
            f"split {given.split!r}; leave the option out, or the column"
        )
    by: Literal["group", "file"] = "group" if split is None else split.by
    if by == "group" and (unknown := sum(clip.group is None for clip in clips)):
        some = f"{unknown} of {len(clips)} clips have no group"
        known = "no groups are known" if unknown == len(clips) else some
        logger.warning(
            "%s: %s, so that each file is one; where several are of one person or device, name it (`pattern` of "
            "folders, the column `group` of lists): else scores are too good", name, known
        )  # fmt: skip
    names = ["train", "test"] if split is not None else [str(number + 1) for number in range(folds or 0)]
    shares = [1 - split.test, split.test] if split is not None else [1 / len(names)] * len(names)
    try:
        parts = deal(clips, shares, by=by)
    except ValueError as error:
        raise RecipeError(f"{name}: {error}") from error
    if split is not None and abs((found := float(parts.mean())) - split.test) > split.test / 3:
        logger.warning(
            "%s: the test part has %.1f %% of the clips, where %.1f %% are asked for: groups are too large, or classes "
            "too small, for less or more", name, 100 * found, 100 * split.test
        )  # fmt: skip
    if by == "file":
        clips = [replace(clip, group=None) for clip in clips]
    return [replace(clip, split=names[part]) for clip, part in zip(clips, parts.tolist(), strict=True)]


def deal(
    clips: Sequence[Clip], shares: Sequence[float], *, by: Literal["group", "file"] = "group"
) -> NDArray[np.int64]:
    """The part (n,) of each clip, from 0, where the parts are to have these shares of every class.

    Groups are never divided; clips without one stay with their file. Labels of which most are of one group each are no
    classes. Groups are dealt from the largest to the smallest, equal ones in a fixed random order, each to the part
    that lacks its classes most. No part stays empty; ValueError where there are fewer groups than parts.
    """
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        members[clip.unit if by == "group" else ("file", str(clip.path))].append(row)
    units = list(members.values())
    if len(units) < len(shares):
        raise ValueError(f"{len(shares)} parts need as many groups (or files) or more, but have {len(units)}")
    owners = Counter(label for unit in units for label in {x for row in unit for x in clips[row].labels})
    single = sum(count == 1 for count in owners.values())
    # Values, and names of recordings, divide nothing.
    classes = sorted(owners) if 2 * single <= len(units) else []
    column = {label: number for number, label in enumerate(classes, 1)}
    columns = [[0, *(column[label] for label in clip.labels if column)] for clip in clips]  # 0: of every clip
    totals = np.bincount([number for row in columns for number in row], minlength=len(column) + 1)
    lacking = np.outer(shares, totals)  # (parts, 1 + C)
    parts = np.full(len(clips), -1)
    empty = set(range(len(shares)))
    order = sorted(np.random.default_rng(0).permutation(len(units)).tolist(), key=lambda u: -len(units[u]))
    for dealt, unit in enumerate(order):
        counts = np.bincount([n for row in units[unit] for n in columns[row]], minlength=len(totals))
        need = lacking @ (counts / totals)
        if len(units) - dealt <= len(empty):
            need[[part not in empty for part in range(len(shares))]] = -np.inf
        part = int(need.argmax())
        lacking[part] -= counts
        empty.discard(part)
        parts[units[unit]] = part
    return parts
