"""Recordings that clips were cut from, by their file names and times, and what leaks from one split to another."""

from __future__ import annotations

import filecmp
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import m2dx
from m2dx.contract.wording import counted
from m2dx_specialise.duplicates import Duplicate
from m2dx_specialise.findings import Finding, named
from m2dx_specialise.listing import Clip

_CUT = re.compile(
    r"[\s_\-.]+(?:(?:part|seg|segment|chunk|cut|slice|piece|clip|crop|win|window|frame)s?[\s_\-.]?\d+"
    r"|\d+(?:\.\d+)?s?[\s_\-]+(?:to[\s_\-]+)?\d+(?:\.\d+)?s?)$",
    re.IGNORECASE,
)
"""What names of cuts end with: _part3, -seg012, _chunk_4, or a start and an end, _10.0_15.0."""
Rows = tuple[int, ...]


def cuts(clips: Sequence[Clip], *, by_names: bool = True) -> tuple[Rows, ...]:
    """Clips of one file; with `by_names` also files whose names say that they are cuts of one recording, but not where
    `whole_classes` has them. Each has two clips or more."""
    numbered = {row for rows in whole_classes(clips) for row in rows}
    members: dict[Path, list[int]] = defaultdict(list)
    for row, source in enumerate(_sources(clips)):
        members[source if by_names and row not in numbered else clips[row].path].append(row)
    return tuple(tuple(rows) for rows in members.values() if len(rows) > 1)


def whole_classes(clips: Sequence[Clip]) -> tuple[Rows, ...]:
    """Files named like cuts of one recording that are all of their classes, where no two others can be divided."""
    members: dict[Path, list[int]] = defaultdict(list)
    homes: dict[str, set[Path]] = defaultdict(set)
    for row, source in enumerate(_sources(clips)):
        members[source].append(row)
        for label in clips[row].labels:
            homes[label].add(source)
    divided = [found for found in homes.values() if len(found) > 1]
    if len(divided) > 1:
        return ()
    whole = set[Path]().union(*homes.values()).difference(*divided)
    return tuple(
        tuple(rows)
        for source, rows in members.items()
        if source in whole and len({clips[row].path for row in rows}) > 1
    )


def numbers(clips: Sequence[Clip]) -> Iterator[Finding]:
    """Names like those of cuts that are taken for numbers, as else their classes could not be divided."""
    if found := whole_classes(clips):
        paths = tuple(dict.fromkeys(clips[row].path for rows in found for row in rows))
        text = f"Files such as {named(paths[0])} and {named(paths[1])} are named like cuts of one recording, which "
        text += f"would be all of {clips[found[0][0]].labels[0]!r}."
        advice = "Each file counts as one; if they are cuts, scores are too good: say by --group-from what is together."
        yield Finding("cuts", "note", text, paths, advice)


def _sources(clips: Sequence[Clip]) -> list[Path]:
    """The recording of each clip by its name; the file itself, where names of its kind are not those of cuts."""
    sources = [_source(clip.path) for clip in clips]
    no_times = {source for source, is_cut in sources if not is_cut}
    return [clips[row].path if source in no_times else source for row, (source, _) in enumerate(sources)]


def _source(path: Path) -> tuple[Path, bool]:
    """The recording, without what says which cut of it a file is; and whether the name may be that of a cut.

    Two numbers are times of a cut where the first is the smaller one, and so in all files of the name: those of
    dog_2_1 and dog_1_2 are none.
    """
    match = _CUT.search(path.stem)
    if match is None:
        return path, True
    numbers = re.findall(r"\d+(?:\.\d+)?", match[0])
    is_cut = len(numbers) != 2 or float(numbers[0]) < float(numbers[1])
    return path.parent / path.stem[: match.start()], is_cut


def leaks(clips: Sequence[Clip], pairs: Sequence[Duplicate], origins: Sequence[Rows]) -> Iterator[Finding]:
    """Duplicates, cuts and groups, and which of them are on both sides of a split."""

    def paths(found: Iterable[Sequence[int]]) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(clips[row].path for rows in found for row in rows))

    def apart(found: Iterable[Sequence[int]]) -> list[Sequence[int]]:
        return [rows for rows in found if len({clips[row].split for row in rows}) > 1]

    for kind, exact in (("exact duplicates", True), ("near duplicates", False)):
        found = [(pair.first, pair.second) for pair in pairs if pair.exact is exact]
        if not found:
            continue
        across = apart(found)
        unlike = [
            (named(clips[one].path), named(clips[other].path))
            for one, other in found
            if set(clips[one].labels) != set(clips[other].labels)
        ]
        one, other = (named(clips[row].path) for row in (across or found)[0])
        text = f"{counted(len(found), 'pair')} of clips {'has' if len(found) == 1 else 'have'} "
        text += (
            "the same samples" if exact else "sound in common, re-encoded, shifted, cut or at another level"
        )
        text += f", e.g. {one} and {other}"
        text += f"; {len(across)} on both sides of the split" if across else ""
        text += f"; {len(unlike)} with different labels, e.g. {' and '.join(unlike[0])}." if unlike else "."
        advice = "The division keeps them on one side" + ("; check the labels." if unlike else ".")
        yield Finding(kind, "warning" if across or unlike else "note", text, paths(found), advice)
    if split := apart(origins):
        name = named(_source(clips[split[0][0]].path)[0])
        text = f"Clips of {counted(len(split), 'recording')} are on both sides of the split, e.g. of {name}."
        advice = "The division keeps the clips of a recording on one side."
        yield Finding("cuts", "warning", text, paths(split), advice)
    members: dict[str, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        if clip.group is not None:
            members[clip.group].append(row)
    if split := apart(members.values()):
        text = (
            f"{len(split)} of {counted(len(members), 'group')} {'is' if len(split) == 1 else 'are'} on both sides of "
            f"the split, e.g. {clips[split[0][0]].group!r}."
        )
        yield Finding("groups", "warning", text, paths(split), "The division keeps each group on one side.")


def without_copies(clips: Sequence[m2dx.Clip], held: Sequence[m2dx.Clip]) -> list[m2dx.Clip]:
    """The clips without those whose file is one of others, or has the same bytes."""
    paths = {clip.path.resolve() for clip in held}
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in filter(Path.is_file, paths):
        by_size[path.stat().st_size].append(path)

    def is_copy(path: Path) -> bool:
        same = by_size.get(path.stat().st_size, ()) if path.is_file() else ()
        return any(filecmp.cmp(path, other, shallow=False) for other in same)

    return [clip for clip in clips if clip.path.resolve() not in paths and not is_copy(clip.path)]
