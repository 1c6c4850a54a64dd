"""A division that does not leak: what is of one recording, one group or one source stays on one side."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import m2dx
from m2dx.contract.atomic import replace_text
from m2dx.contract.wording import counted, some_of
from m2dx.data.division import deal
from m2dx.evaluation.splits import SPLITS
from m2dx_specialise.audit import Audit
from m2dx_specialise.duplicates import Duplicate
from m2dx_specialise.findings import named
from m2dx_specialise.listing import Clip, Listing
from m2dx_specialise.names import FEWEST_GROUPS
from m2dx_specialise.parts import Parts

SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}
FOLDS = 5
SMALL_CLIPS, SMALL_CLASS, FEW_GROUPS = 200, 20, 15
"""Fewer labelled clips, or groups, are divided into folds; a class of fewer clips is rare."""
MANY_RARE = 0.2
"""Of the labelled clips, those of rare classes for whose sake all are divided into folds."""
MOST_SEVERAL = 0.1
"""Of the labelled clips, those with several labels that are left out; of more, there is no verdict."""
MOST_LOST = 0.2
"""Of the labelled clips, those that may leak in a division of the data that is kept."""
_TRIES = 20


@dataclass(frozen=True)
class Division:
    """Clips, each with what it must stay with as its group."""

    rows: tuple[Clip, ...]  # labelled, with split (or fold); none where there are fewer than two classes
    pool: tuple[Clip, ...]  # the others: without labels, or of one class
    sentence: str


def divide(listing: Listing, audit: Audit, seed: int = 0) -> Division:
    """Training, validation and test part, or folds of small data; always the same for a seed.

    A division that the data have is kept where it costs few clips, without the training clips that leak. Classes of a
    single clip or group, or without training clips, are left out; so are copies that would unite too many groups.
    Raises RecipeError where no two classes are left, though there are several.
    """
    usable = {row: clip for row, clip in enumerate(listing.clips) if row not in audit.unusable}
    if not usable:
        total = counted(len(listing.clips), "clip")
        raise m2dx.RecipeError(f"{listing.data}: of {total} all are silent, or cannot be read to the end")
    usable, note = _with_one_label(usable)
    usable, copies = _grouped(listing, usable, audit)
    note += copies
    groups = _groups(usable)
    names = sorted(label for label, found in groups.items() if len(found) > 1)
    if len(groups) < 2:
        text = f"{note}{counted(len(usable), 'clip')} to train on, and none to test."
        return Division((), tuple(usable.values()), text)
    if len(names) < 2:
        label, group = next((name, min(map(str, of))) for name, of in groups.items() if name not in names)
        raise m2dx.RecipeError(
            f"{listing.data}: two classes or more must come from two groups (or files) or more, so that training and "
            f"test can be kept apart, but all clips of {label!r} are of one ({group!r}); record more, or say by "
            "--group-from what belongs together (none: each file for itself)"
        )
    kept = {row: tuple(label for label in clip.labels if label in names) for row, clip in usable.items()}
    clips = {row: replace(usable[row], labels=labels) for row, labels in kept.items() if labels}
    pool = tuple(replace(clip, labels=()) for row, clip in usable.items() if row not in clips)
    left_out = ", ".join(map(repr, sorted(set(groups) - set(names))))
    note += f"Left out, as all clips are of one group: {left_out}. " if left_out else ""
    splits = {clip.split for clip in clips.values()}
    if None not in splits and len(splits) > 1 and (splits <= set(SPLITS) or not splits & set(SPLITS)):
        rows, text = _kept(clips)
        note += text
        if rows:
            return Division(rows, pool, note)
    elif len(splits) > 1:
        note += "The splits of the data are not complete and not used. "
    rows, text = _dealt(clips, groups, seed)
    note += text
    count, tested = (
        len({clip.group for clip in of}) for of in (rows, [c for c in rows if c.split == "test"])
    )
    what = "Parts" if rows[0].split in SPLITS else "Folds"
    shared = (audit.duplicates and not copies) or audit.cuts
    of = f"{count}, clips that share sound in one" if shared else f"{count}"
    of += f"; {tested} are tested" if tested else ""
    return Division(rows, pool, f"{note}{what} of whole groups ({of}), balanced by class: {_sizes(rows)}.")


def _with_one_label(clips: dict[int, Clip]) -> tuple[dict[int, Clip], str]:
    """Clips with several labels lose them where they are few; and a note of it."""
    several = [row for row, clip in clips.items() if len(clip.labels) > 1]
    if not 0 < len(several) <= MOST_SEVERAL * sum(bool(clip.labels) for clip in clips.values()):
        return clips, ""
    found = clips | {row: replace(clips[row], labels=()) for row in several}
    gone = {label for row in several for label in clips[row].labels}
    gone -= {label for clip in found.values() for label in clip.labels}
    with_them = f", and with them all of {some_of(map(repr, sorted(gone)))}" if gone else ""
    first = named(clips[several[0]].path)
    return found, f"Left out, for several labels: {counted(len(several), 'clip')}, e.g. {first}{with_them}. "


def _grouped(listing: Listing, clips: dict[int, Clip], audit: Audit) -> tuple[dict[int, Clip], str]:
    """The clips, each with what it must stay with as its group; and a note of copies that are left out.

    Clips that share sound unite their groups; but where this leaves too few, and leaving out copies does not, only
    those of one group stay, that which has the most labelled ones.
    """

    def united(duplicates: Sequence[Duplicate]) -> dict[int, Clip]:
        of = _joined(listing, audit.cuts, duplicates)
        return {row: replace(clip, group=of[row]) for row, clip in clips.items()}

    found, apart = united(audit.duplicates), united(())
    copies = _copies(apart, [(pair.first, pair.second) for pair in audit.duplicates], len(listing.clips))
    left = {row: clip for row, clip in apart.items() if row not in copies}
    if _divides(found) or not _divides(left):
        return found, ""
    first = named(clips[min(copies)].path)
    text = f"Left out, as other groups have their sound, too: {counted(len(copies), 'clip')}, e.g. {first}. "
    return left, text


def _copies(clips: Mapping[int, Clip], pairs: Sequence[tuple[int, int]], size: int) -> set[int]:
    """Of clips with sound in common, directly or by others, all but those of one group."""
    alike: dict[int, list[int]] = defaultdict(list)
    for row, component in enumerate(_components(pairs, size)):
        if row in clips:
            alike[component].append(row)
    copies: set[int] = set()
    for rows in alike.values():
        labelled = Counter[str | None]()
        for row in rows:
            labelled[clips[row].group] += bool(clips[row].labels)
        kept = max(labelled, key=labelled.__getitem__)
        copies.update(row for row in rows if clips[row].group != kept)
    return copies


def _components(pairs: Sequence[tuple[int, int]], size: int) -> list[int]:
    """The number of the component that each of `size` rows is in, where pairs are joined."""
    one, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(size, size))
    found: list[int] = connected_components(graph, directed=False)[1].tolist()
    return found


def _divides(clips: Mapping[int, Clip]) -> bool:
    """Whether three parts can have two classes each, and the training part two groups."""
    groups = _groups(clips).values()
    several = sum(len(of) >= len(SHARES) for of in groups) > 1
    return several and len(set[str | None]().union(*groups)) >= FEWEST_GROUPS


def _groups(clips: Mapping[int, Clip]) -> dict[str, set[str | None]]:
    """Those of each class."""
    found: dict[str, set[str | None]] = defaultdict(set)
    for clip in clips.values():
        for label in clip.labels:
            found[label].add(clip.group)
    return found


def _joined(listing: Listing, cuts: Iterable[Sequence[int]], duplicates: Sequence[Duplicate]) -> list[str]:
    """The name of what each clip must stay with: united by groups, files, recordings and duplicates."""
    together: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, clip in enumerate(listing.clips):
        together["file", os.path.realpath(clip.path)].append(row)
        if clip.group is not None:
            together["group", clip.group].append(row)
    unions = [*together.values(), *cuts]
    pairs = [(rows[0], row) for rows in unions for row in rows[1:]]
    pairs += [(pair.first, pair.second) for pair in duplicates]
    first: dict[int, str] = {}
    for row, component in enumerate(found := _components(pairs, len(listing.clips))):
        first.setdefault(component, listing.clips[row].group or f"{listing.clips[row].path.stem}#{row}")
    return [first[component] for component in found]


def _without_leaks(clips: dict[int, Clip]) -> tuple[Clip, ...]:
    """The clips without those whose group is also in a later part (of folds: in a fold that has more of it)."""
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    for clip in clips.values():
        counts[clip.group][str(clip.split)] += 1
    given = {clip.split for clip in clips.values()} <= set(SPLITS)

    def home(group: str | None) -> str:
        if given:
            return max(counts[group], key=SPLITS.index)
        return max(sorted(counts[group]), key=lambda fold: counts[group][fold])

    return tuple(clip for clip in clips.values() if clip.split == home(clip.group))


def _kept(clips: dict[int, Clip]) -> tuple[tuple[Clip, ...], str]:
    """The clips of a division that the data have, and how it is kept; none where it cannot be, and why."""
    rows = _without_leaks(clips)
    left, note, lost = len(clips) - len(rows), "", list[str]()
    if {clip.split for clip in rows} <= set(SPLITS):
        lost = [
            f"{split} has none of {name!r}"
            for split in ("train", "test")
            for name in sorted(_classes(clips.values(), split) - _classes(rows, split))
        ]
        rows, note = _with_training(rows)
        counts = {split: len(_classes(rows, split)) for split in ("train", "test")}
        few = [f"{split} has {counted(count, 'class')}" for split, count in counts.items() if count < 2]
        lost = [f"{few[0]}, and two are the least"] if few else lost
    if left > MOST_LOST * len(clips):
        lost.append(f"{len(clips) - left:,} of {counted(len(clips), 'clip')} are left")
    if problem := lost[0] if lost else Parts.of(rows).of_division:
        leaking = "without leaking clips, " if left else ""
        return (), f"The division of the data cannot be kept ({leaking}{problem}). "
    how = f" without {counted(left, 'clip')} that share a group or sound with the test or validation part"
    how = how if left else ", in which no known group or sound is on two sides"
    return rows, f"{note}The division of the data is kept{how}: {_sizes(rows)}."


def _classes(rows: Iterable[Clip], split: str) -> set[str]:
    return {label for clip in rows if clip.split == split for label in clip.labels}


def _with_training(rows: tuple[Clip, ...]) -> tuple[tuple[Clip, ...], str]:
    """The clips of parts without classes that the training part lacks, as none could be right; and a note of it."""
    trained = _classes(rows, "train")
    gone = sorted({label for clip in rows for label in clip.labels} - trained)
    note = f"Left out, as no training clip has them: {', '.join(map(repr, gone))}. " if gone else ""
    return tuple(clip for clip in rows if trained.issuperset(clip.labels)), note


def _dealt(
    clips: dict[int, Clip], groups: Mapping[str, set[str | None]], seed: int
) -> tuple[tuple[Clip, ...], str]:
    """The clips in parts of whole groups, or in folds where they, or their groups, are few; and what is left out.

    `groups`: those of each class.
    """
    counts = Counter(label for clip in clips.values() for label in clip.labels)
    rare = {name for name in counts if counts[name] < SMALL_CLASS or len(groups[name]) < len(SHARES)}
    number = len({clip.group for clip in clips.values()})
    many = number >= FEW_GROUPS and len(clips) >= SMALL_CLIPS
    if many and sum(counts[name] for name in rare) < MANY_RARE * counts.total():
        rows, note = _with_training(_balanced(clips, SHARES, counts, seed))
        common = set(counts) - rare
        if all(common <= _classes(rows, of) for of in ("train", "test")) and not Parts.of(rows).of_division:
            return rows, note
    dealt = []
    for folds in range(min(FOLDS, number), 1, -1):
        shares = {str(fold + 1): 1 / folds for fold in range(folds)}
        dealt.append(_balanced(clips, shares, counts, seed))
        if not Parts.of(dealt[-1]).of_division:
            return dealt[-1], ""
    return dealt[0], ""


def _balanced(
    clips: dict[int, Clip], parts: dict[str, float], counts: Counter[str], seed: int
) -> tuple[Clip, ...]:
    """The best of some deals in a random order."""
    labels, deals = list(parts), []
    for attempt in range(_TRIES):
        order = np.random.default_rng([seed, attempt]).permutation(list(clips)).tolist()
        dealt = deal([clips[row] for row in order], list(parts.values())).tolist()
        found = {row: replace(clips[row], split=labels[part]) for row, part in zip(order, dealt, strict=True)}
        deals.append((_imbalance(found, parts, counts), attempt, found))
    return tuple(of for _, of in sorted(min(deals, key=lambda of: of[:2])[2].items()))


def _imbalance(rows: dict[int, Clip], shares: dict[str, float], counts: Counter[str]) -> float:
    """How far the parts are from their shares of each class; a class that a part lacks counts more."""
    have = Counter((str(clip.split), label) for clip in rows.values() for label in clip.labels)
    return sum(
        abs(have[part, label] / count - share) + 2 * (have[part, label] == 0)
        for part, share in shares.items()
        for label, count in counts.items()
    )


def _sizes(rows: Sequence[Clip]) -> str:
    counts = Counter(str(clip.split) for clip in rows)
    named = [f"{name} {counts[name]:,}" for name in SPLITS if name in counts]
    return ", ".join(named or [f"{counts[fold]:,}" for fold in sorted(counts)])


def write_list(path: Path, clips: Iterable[m2dx.Clip]) -> None:
    """Writes clips as a list that the data set `csv` reads. Raises OSError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "start", "duration", "label", "split", "group"])
    for clip in clips:
        duration = "" if clip.duration is None else f"{clip.duration:.6f}"
        cells = os.path.abspath(clip.path), f"{clip.start:.6f}", duration, ";".join(clip.labels)
        writer.writerow([*cells, clip.split or "", clip.group or ""])
    replace_text(path, text.getvalue(), errors="surrogateescape")
