"""Recordings that clips were cut from, by their file names and times, and what leaks from one split to another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2dx.contract.wording import counted
from m2dx_specialise.duplicates import Duplicate
from m2dx_specialise.findings import Finding, Severity
from m2dx_specialise.listing import Clip

_CUT = re.compile(
    r"[\s_\-.]+(?:(?:part|seg|segment|chunk|cut|slice|piece|clip|crop|win|window|frame)s?[\s_\-.]?\d+"
    r"|\d+(?:\.\d+)?s?[\s_\-]+(?:to[\s_\-]+)?\d+(?:\.\d+)?s?)$",
    re.IGNORECASE,
)
"""What names of cuts end with: _part3, -seg012, _chunk_4, or a start and an end, _10.0_15.0."""


@dataclass(frozen=True)
class Cut:
    """Clips of one recording."""

    name: str  # of the recording
    rows: tuple[int, ...]


def cuts(clips: Sequence[Clip]) -> list[Cut]:
    """Clips of one file, and files whose names say that they are cuts of one recording; each with two clips or more."""
    members: dict[str, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        stem = _source(clip.path)
        members[str(clip.path.parent / stem)].append(row)
    return [Cut(name, tuple(rows)) for name, rows in members.items() if len(rows) > 1]


def _source(path: Path) -> str:
    """The name of the recording: the stem without what says which cut it is, where there is a start before an end."""
    match = _CUT.search(path.stem)
    if match is None:
        return path.name
    numbers = re.findall(r"\d+(?:\.\d+)?", match[0])
    if len(numbers) == 2 and float(numbers[0]) >= float(numbers[1]):
        return path.name
    return path.stem[: match.start()]


def leaks(
    clips: Sequence[Clip], duplicates: Sequence[Duplicate], origins: Sequence[Cut]
) -> Iterator[Finding]:
    """Duplicates, cuts and groups, and which of them are on both sides of a split."""
    for kind, exact in (("exact duplicates", True), ("near duplicates", False)):
        found = [pair for pair in duplicates if pair.exact is exact]
        if not found:
            continue
        across = [pair for pair in found if _apart(clips, (pair.first, pair.second))]
        unlike = sum(set(clips[p.first].labels) != set(clips[p.second].labels) for p in found)
        pair = (across or found)[0]
        text = (
            f"{counted(len(found), 'pair')} of clips {'is' if len(found) == 1 else 'are'} the same recording"
            f"{'' if exact else ' re-encoded, shifted, cut or at another level'}"
            f"{f', {len(across)} of them on both sides of the split' if across else ''}"
            f"{f'; {unlike} have different labels' if unlike else ''}, e.g. {clips[pair.first].path.name} and "
            f"{clips[pair.second].path.name}."
        )
        yield Finding(
            kind,
            Severity.WARNING if across or unlike else Severity.NOTE,
            text,
            _paths(clips, (row for pair in found for row in (pair.first, pair.second))),
            "The division keeps them on one side" + ("; check the labels." if unlike else "."),
        )
    apart = [cut for cut in origins if _apart(clips, cut.rows)]
    if apart:
        yield Finding(
            "cuts",
            Severity.WARNING,
            f"Clips of {counted(len(apart), 'recording')} are on both sides of the split, e.g. of "
            f"{Path(apart[0].name).name}.",
            _paths(clips, (row for cut in apart for row in cut.rows)),
            "The division keeps the clips of a recording on one side.",
        )
    members: dict[str, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        if clip.group is not None:
            members[clip.group].append(row)
    shared = {group: rows for group, rows in members.items() if _apart(clips, rows)}
    if shared:
        yield Finding(
            "groups",
            Severity.WARNING,
            f"{len(shared)} of {counted(len(members), 'group')} {'is' if len(shared) == 1 else 'are'} on both sides of "
            f"the split, e.g. {next(iter(shared))!r}.",
            _paths(clips, (row for rows in shared.values() for row in rows)),
            "The division keeps each group on one side.",
        )


def _apart(clips: Sequence[Clip], rows: Iterable[int]) -> bool:
    return len({clips[row].split for row in rows}) > 1


def _paths(clips: Sequence[Clip], rows: Iterable[int]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(clips[row].path for row in rows))
