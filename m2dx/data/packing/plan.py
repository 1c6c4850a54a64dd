"""What a pack stores: the listed stretches of each file, each once, and where each clip lies in them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from m2dx.contract.components import Clip


@dataclass(frozen=True)
class ClipSet:
    """The clips of one list of a pack."""

    clips: tuple[Clip, ...]
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class Stretch:
    """A part of a file that becomes one member. It begins on a whole second, so that clips keep their milliseconds."""

    path: str
    begin: int  # seconds
    end: float | None  # seconds; None: to the end of the file
    extents: tuple[tuple[float, float | None], ...]  # start and duration (s) of its clips, each once


@dataclass(frozen=True)
class Plan:
    """The stretches in the order in which their clips are first listed."""

    stretches: tuple[Stretch, ...]
    place: Mapping[tuple[str, float, float | None], int]  # from path, start and duration to the stretch

    def stretch_of(self, clip: Clip) -> int:
        """The number of a clip's stretch."""
        return self.place[key_of(clip)]


def make_plan(sets: Iterable[ClipSet], *, whole_files: bool) -> Plan:
    """What to store of the clips of all lists. `whole_files`: each file as it is, else only what is listed of it.

    Listed stretches of a file that overlap or touch are stored as one; nothing is stored twice.
    """
    listed: dict[tuple[str, float, float | None], int] = {}  # in which place
    by_path: dict[str, list[tuple[float, float | None]]] = {}
    for clip in (clip for clip_set in sets for clip in clip_set.clips):
        path, start, duration = key = key_of(clip)
        if key not in listed:
            listed[key] = len(listed)
            by_path.setdefault(path, []).append((start, duration))
    found = [
        stretch
        for path, extents in by_path.items()
        for stretch in ([Stretch(path, 0, None, tuple(extents))] if whole_files else _merged(path, extents))
    ]
    found.sort(key=lambda part: min(listed[part.path, *extent] for extent in part.extents))
    place = {(part.path, *extent): i for i, part in enumerate(found) for extent in part.extents}
    return Plan(tuple(found), place)


def fingerprint(sets: Mapping[str, ClipSet], options: Mapping[str, object]) -> str:
    """A SHA-256 of the lists and of the options, by which an interrupted packing knows its own."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for name, clip_set in sets.items():
        digest.update(json.dumps([name, clip_set.label_names]).encode())
        for clip in clip_set.clips:
            known = [*key_of(clip), clip.labels, clip.split, clip.group, float(clip.weight)]
            digest.update(json.dumps(known).encode())
    return digest.hexdigest()


def key_of(clip: Clip) -> tuple[str, float, float | None]:
    """Path, start and duration (s), as Python's own types: a list may have numpy's, which JSON does not know."""
    duration = None if clip.duration is None else float(clip.duration)
    return os.path.abspath(clip.path), float(clip.start), duration


def _merged(path: str, extents: Sequence[tuple[float, float | None]]) -> list[Stretch]:
    """The stretches of one file."""
    found: list[tuple[int, float, list[tuple[float, float | None]]]] = []
    for start, duration in sorted(extents, key=lambda extent: extent[0]):
        begin, end = math.floor(start), math.inf if duration is None else start + duration
        if found and begin <= found[-1][1]:
            first, last, members = found.pop()
            found.append((first, max(last, end), [*members, (start, duration)]))
        else:
            found.append((begin, end, [(start, duration)]))
    return [
        Stretch(path, begin, None if end == math.inf else end, tuple(members))
        for begin, end, members in found
    ]
