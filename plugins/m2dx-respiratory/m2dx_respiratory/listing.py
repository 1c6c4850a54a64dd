"""Data sets of annotated recordings: their files are looked through once, and what does not fit is counted."""

from __future__ import annotations

import abc
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import m2dx
from m2dx_respiratory.annotations import Annotation, Stretch
from m2dx_respiratory.extents import HEADER_THREADS, UNREADABLE, end_within, seconds_or_reason
from m2dx_respiratory.findings import Findings


@dataclass(frozen=True)
class Recording:
    """A recording of a data set."""

    path: Path
    annotation: Path | None  # None: there is none
    patient: str
    split: str

    def whole(self) -> m2dx.Clip:
        """All of it, without labels."""
        return m2dx.Clip(self.path, split=self.split, group=self.patient)

    def clip(self, stretch: Stretch, *, end: float) -> m2dx.Clip:
        """A stretch of it, up to `end` (seconds)."""
        return m2dx.Clip(
            self.path,
            start=stretch.begin,
            duration=end - stretch.begin,
            labels=(stretch.label,),
            split=self.split,
            group=self.patient,
        )


@dataclass(frozen=True)
class _Content:
    clips: tuple[m2dx.Clip, ...]
    findings: Findings


class RespiratoryDataset(m2dx.Dataset):
    """What the data sets of this plugin have in common; they say what their files hold."""

    path: Path

    @abc.abstractmethod
    def search(self, findings: Findings) -> list[m2dx.Clip]:
        """All clips, in an order that does not change; what does not fit is added to the findings."""

    def clips(self, split: str | None = None) -> list[m2dx.Clip]:
        """Clips of one split, or all of them, by recording and in the order of its annotation."""
        return [clip for clip in self._content.clips if split is None or clip.split == split]

    def missing(self) -> list[str]:
        """What was left out or does not fit, one line for each kind."""
        return list(self._content.findings.lines())

    @cached_property
    def _content(self) -> _Content:
        findings = Findings()
        clips = self.search(findings)
        findings.warn(f"{self.name} ({self.path})")
        return _Content(tuple(clips), findings)


def stretch_clips(
    recordings: Sequence[Recording],
    read: Callable[[Path], Annotation],
    findings: Findings,
    *,
    stretches: str,
    lacking: str,
) -> list[m2dx.Clip]:
    """A clip for each annotated stretch, cut to the end of its recording.

    `stretches` is what they are called in findings, `lacking` what a recording without annotation is.
    """
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        lengths = pool.map(seconds_or_reason, [recording.path for recording in recordings])
    clips: list[m2dx.Clip] = []
    for recording, length in zip(recordings, lengths, strict=True):
        if recording.annotation is None:
            findings.add(lacking, recording.path)
            continue
        found = read(recording.annotation)
        for problem in found.problems:
            findings.add(f"problems in annotation files, all {stretches} of which are left out", problem)
        if isinstance(length, str):
            findings.add(UNREADABLE, f"{recording.path}: {length}")
            length = math.inf
        for stretch in found.stretches:
            end = end_within(stretch.begin, stretch.end, length, stretch.where, findings)
            if end is not None:
                clips.append(recording.clip(stretch, end=end))
    return clips


def refuse_nothing(clips: Sequence[m2dx.Clip], what: str, folder: Path, findings: Findings) -> None:
    """Raises `AudioError`, with all findings, where there are no clips."""
    if not clips:
        problems = "\n".join(f"  {line}" for line in findings.lines())
        raise m2dx.AudioError(f"no {what} can be used in {folder}:\n{problems}")


def compare_with_official(
    found: Sequence[m2dx.Clip | Recording], official: Mapping[str, int], unit: str, findings: Findings
) -> None:
    """Remarks on other numbers than the official ones of the splits."""
    counts: Mapping[str | None, int] = Counter(item.split for item in found)
    if any(counts[split] != number for split, number in official.items()):
        findings.remark(
            f"the official split has {official['train']} {unit} for training and {official['test']} for testing, but "
            f"{counts['train']} and {counts['test']} were found: scores are not comparable with published ones"
        )
