"""A division that does not leak: what is of one recording, one group or one source stays on one side."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

import m2dx
from m2dx.contract.atomic import replace_text
from m2dx.contract.wording import counted
from m2dx.data.division import deal
from m2dx.evaluation.splits import SPLITS
from m2dx_specialise.audit import Audit
from m2dx_specialise.listing import Clip, Listing

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}
FOLDS = 5
SMALL_CLIPS, SMALL_CLASS = 200, 20
"""Fewer labelled clips, or clips in a class, are divided into folds."""
_TRIES = 20
_COLUMNS = ("path", "start", "duration", "label", "split", "group")


@dataclass(frozen=True)
class Division:
    """The labelled clips, each with its split (or fold) and with what it must stay with as its group."""

    rows: tuple[Clip, ...]
    kind: Literal["split", "folds"]
    pool: tuple[Clip, ...]
    """Clips to pre-train on: those of the training part, and those without labels that share nothing with the others.

    With folds there is no part that is never tested, and the pool has all clips."""
    dropped: tuple[Clip, ...]
    sentence: str

    def write(self, path: Path) -> None:
        """Writes the rows as a list that the data set `csv` reads. Raises OSError."""
        _write(path, self.rows)

    def write_pool(self, path: Path) -> None:
        """Writes the clips to pre-train on as such a list. Raises OSError."""
        _write(path, self.pool)


def divide(listing: Listing, audit: Audit, seed: int = 0) -> Division:
    """Training, validation and test part, or folds of small data; always the same for a seed.

    A division that the data have is kept, without the training clips that leak. Raises RecipeError where there are
    fewer than two classes, or where a class has too few groups to be on every side.
    """
    joined = _joined(listing, audit)
    classes = Counter(
        label for row, clip in enumerate(listing.clips) if row not in audit.unusable for label in clip.labels
    )
    single = {label for label, count in classes.items() if count < 2}
    clips: dict[int, Clip] = {}
    for row, clip in enumerate(listing.clips):
        kept = tuple(label for label in clip.labels if label not in single)
        if kept and row not in audit.unusable:
            clips[row] = replace(clip, group=joined[row], labels=kept)
    names = sorted({label for clip in clips.values() for label in clip.labels})
    if len(names) < 2:
        has = f"only {names[0]!r}" if names else "none"
        raise m2dx.RecipeError(
            f"{listing.data}: there must be two classes with two clips or more, but there is {has}"
        )
    note = ""
    splits = {clip.split for clip in clips.values()}
    if None not in splits and len(splits) > 1 and (splits <= set(SPLITS) or not splits & set(SPLITS)):
        rows, dropped = _without_leaks(clips)
        if problem := _unequal(rows, names):
            note = f"The division of the data cannot be kept ({problem}). "
        else:
            left = [clips[row] for row in dropped]
            text = f"The division of the data is kept{_dropped_text(left)}: {_sizes(list(rows.values()))}."
            return _division(listing, audit, joined, rows, left, text)
    elif len(splits) > 1:
        note = "The splits of the data are not complete and not used. "
    rows = _dealt(listing, clips, names, seed)
    groups = len({clip.group for clip in rows.values()})
    what = "Folds" if next(iter(rows.values())).split not in SPLITS else "Parts"
    text = f"{note}{what} of whole groups ({groups}), balanced by class: {_sizes(list(rows.values()))}."
    return _division(listing, audit, joined, rows, [], text)


def _joined(listing: Listing, audit: Audit) -> list[str]:
    """The name of what each clip must stay with: united by groups, files, recordings and duplicates."""
    parent = list(range(len(listing.clips)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    together: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, clip in enumerate(listing.clips):
        together["file", os.path.realpath(clip.path)].append(row)
        if clip.group is not None:
            together["group", clip.group].append(row)
    unions = [*together.values(), *(cut.rows for cut in audit.cuts)]
    unions += [(pair.first, pair.second) for pair in audit.duplicates]
    for rows in unions:
        for row in rows[1:]:
            first, second = sorted((root(rows[0]), root(row)))
            parent[second] = first
    return [
        listing.clips[root(row)].group or listing.clips[root(row)].path.stem + f"#{root(row)}"
        for row in range(len(parent))
    ]


def _without_leaks(clips: dict[int, Clip]) -> tuple[dict[int, Clip], list[int]]:
    """The clips without those whose group is also in a later part (of folds: in a fold that has more of it)."""
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    for clip in clips.values():
        counts[clip.group][str(clip.split)] += 1
    given = {clip.split for clip in clips.values()} <= set(SPLITS)

    def home(group: str | None) -> str:
        if given:
            return max(counts[group], key=SPLITS.index)
        return max(sorted(counts[group]), key=lambda fold: counts[group][fold])

    rows = {row: clip for row, clip in clips.items() if clip.split == home(clip.group)}
    return rows, [row for row in clips if row not in rows]


def _unequal(rows: dict[int, Clip], names: Sequence[str]) -> str:
    """Why a division cannot be used; empty where it can."""
    of: dict[str, set[str]] = defaultdict(set)
    for clip in rows.values():
        for label in clip.labels:
            of[str(clip.split)].add(label)
    for split in ("train", "test") if set(of) & set(SPLITS) else ():
        if lacking := [name for name in names if name not in of[split]]:
            return f"without leaking clips, {split} has none of {lacking[0]!r}"
    return "" if len(of) > 1 else "without leaking clips, one part is left"


def _dealt(listing: Listing, clips: dict[int, Clip], names: Sequence[str], seed: int) -> dict[int, Clip]:
    """The clips in parts of whole groups; the best of some deals in a random order."""
    groups = {name: {clip.group for clip in clips.values() if name in clip.labels} for name in names}
    fewest = min(names, key=lambda name: len(groups[name]))
    if len(groups[fewest]) < 2:
        raise m2dx.RecipeError(
            f"{listing.data}: each class must come from two groups or more, so that training and test can be kept "
            f"apart, but all clips of {fewest!r} are of one ({next(iter(groups[fewest]))!r}); record more, or say by "
            "another column what belongs together"
        )
    counts = Counter(label for clip in clips.values() for label in clip.labels)
    small = (
        len(clips) < SMALL_CLIPS or min(counts.values()) < SMALL_CLASS or len(groups[fewest]) < len(SHARES)
    )
    if small:
        folds = min(FOLDS, len(groups[fewest]))
        parts = {str(number + 1): 1 / folds for number in range(folds)}
    else:
        parts = SHARES
    labels = list(parts)
    best: tuple[float, dict[int, Clip]] | None = None
    for attempt in range(_TRIES):
        order = np.random.default_rng([seed, attempt]).permutation(list(clips)).tolist()
        dealt = deal([clips[row] for row in order], list(parts.values()))
        found = {
            row: replace(clips[row], split=labels[part])
            for row, part in zip(order, dealt.tolist(), strict=True)
        }
        badness = _imbalance(found, parts, counts)
        if best is None or badness < best[0]:
            best = badness, found
    assert best is not None
    rows = dict(sorted(best[1].items()))
    for part in parts:
        have = {label for clip in rows.values() if clip.split == part for label in clip.labels}
        if not small and part != "valid" and (lacking := [name for name in names if name not in have]):
            of = counted(len(groups[lacking[0]]), "group")
            raise m2dx.RecipeError(
                f"{listing.data}: each part must have every class, but whole groups cannot be divided so: {part} would "
                f"have none of {lacking[0]!r}, which comes from {of}; record more groups"
            )
    return rows


def _imbalance(rows: dict[int, Clip], shares: dict[str, float], counts: Counter[str]) -> float:
    """How far the parts are from their shares of each class; a class that a part lacks counts more."""
    have = Counter((str(clip.split), label) for clip in rows.values() for label in clip.labels)
    return sum(
        abs(have[part, label] / count - share) + 2 * (have[part, label] == 0)
        for part, share in shares.items()
        for label, count in counts.items()
    )


def _division(
    listing: Listing,
    audit: Audit,
    joined: Sequence[str],
    rows: dict[int, Clip],
    dropped: Sequence[Clip],
    text: str,
) -> Division:
    folds = any(clip.split not in SPLITS for clip in rows.values())
    held = {joined[row] for row, clip in rows.items() if clip.split != "train" and not folds}
    pool = [
        replace(clip, group=joined[row], split="train")
        for row, clip in enumerate(listing.clips)
        if row not in audit.unusable and joined[row] not in held
    ]
    return Division(tuple(rows.values()), "folds" if folds else "split", tuple(pool), tuple(dropped), text)


def _dropped_text(dropped: Sequence[Clip]) -> str:
    if not dropped:
        return ", in which nothing leaks"
    return f" without {counted(len(dropped), 'clip')} of which others are in the test or validation part"


def _sizes(rows: Sequence[Clip]) -> str:
    counts = Counter(str(clip.split) for clip in rows)
    order = [name for name in SPLITS if name in counts] or sorted(counts)
    return ", ".join(f"{name} {counts[name]:,}" for name in order)


def _write(path: Path, rows: Sequence[Clip]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for clip in rows:
        place = os.path.abspath(clip.path)
        start, duration = f"{clip.start:.6g}", f"{clip.seconds:.6f}"
        writer.writerow([place, start, duration, clip.label or "", clip.split or "", clip.group or ""])
    replace_text(path, text.getvalue(), errors="surrogateescape")
