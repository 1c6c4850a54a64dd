"""The audit: one pass over the recordings, and what is found that would make scores wrong or training worse."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import m2dx
from m2dx.contract.progress import Progress
from m2dx.contract.wording import counted
from m2dx_specialise.confounds import confounds
from m2dx_specialise.defects import defects
from m2dx_specialise.duplicates import Duplicate, find_duplicates
from m2dx_specialise.findings import Finding, Severity
from m2dx_specialise.listing import Clip, Listing
from m2dx_specialise.measures import Container, Measures, Meter, container_of, pieces
from m2dx_specialise.origins import Cut, cuts, leaks
from m2dx_specialise.sketches import Moments, Sketch

THREADS = 2
FEW_CLIPS, FEW_OF_CLASS = 50, 10

__all__ = ["Audit", "Duplicate", "Finding", "Severity", "audit"]


@dataclass(frozen=True)
class Audit:
    """What is known about each recording, and what follows."""

    findings: tuple[Finding, ...]
    """The gravest first."""
    duplicates: tuple[Duplicate, ...]
    cuts: tuple[Cut, ...]
    """Clips of the same recording that no group holds together."""
    measures: tuple[Measures | None, ...]
    """In the order of the clips; None: cannot be read."""
    bad: tuple[tuple[Path, str], ...]
    """Files that cannot be read, with the reason."""

    @property
    def unusable(self) -> frozenset[int]:
        """Indices of the clips that cannot be read, or are silent."""
        return frozenset(row for row, found in enumerate(self.measures) if found is None or found.silent)


def audit(listing: Listing, progress: Progress | None = None) -> Audit:
    """Reads every clip once, and the candidates for duplicates a second time."""
    clips = listing.clips
    measures: list[Measures | None] = []
    moments: list[Moments | None] = []
    bad = dict(listing.bad)
    total = sum(clip.seconds for clip in clips)
    done = 0.0
    for clip, (measured, found, problem) in zip(clips, _read(clips, total), strict=True):
        measures.append(measured)
        moments.append(found)
        if problem is not None:
            bad.setdefault(clip.path, problem)
        done += clip.seconds
        if progress is not None:
            progress(done / 60, max(round(total / 60), 1), f"reads {clip.path.name}")
    duplicates = find_duplicates(clips, measures, moments)
    origins = cuts(clips)
    findings = [
        *_bad_files(bad, len(clips) + len(listing.bad)),
        *_labels(listing),
        *leaks(clips, duplicates, origins),
        *confounds(clips, measures, listing),
        *defects(clips, measures),
    ]
    order = list(Severity)
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Audit(tuple(findings), tuple(duplicates), tuple(origins), tuple(measures), tuple(bad.items()))


_Result = tuple[Measures | None, Moments | None, str | None]


def _read(clips: tuple[Clip, ...], total: float) -> Iterator[_Result]:
    """What each clip measures, in order, some of them ahead."""
    containers: dict[Path, Container] = {}

    def measure(clip: Clip) -> _Result:
        try:
            if clip.path not in containers:
                containers[clip.path] = container_of(clip.path)
            container = containers[clip.path]
            meter, sketch = Meter(container), Sketch(container.sample_rate, total)
            for wav in pieces(clip):
                meter.take(wav)
                sketch.take(wav)
            return meter.measures(), sketch.moments(), None
        except m2dx.AudioError as error:
            return None, None, str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        rest = iter(clips)
        ahead = [pool.submit(measure, clip) for clip in islice(rest, 4 * THREADS)]
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(measure, clip) for clip in islice(rest, 1)]


def _bad_files(bad: dict[Path, str], total: int) -> Iterator[Finding]:
    if bad:
        first = next(iter(bad.items()))
        yield Finding(
            "bad files",
            Severity.WARNING,
            f"{len(bad)} of {counted(total, 'file')} cannot be read, e.g. {first[0]}: {first[1]}.",
            tuple(bad),
            "They are left out; mend or remove them.",
        )


def _labels(listing: Listing) -> Iterator[Finding]:
    """Whether the labels are enough for a classifier and its test."""
    classes, clips = listing.classes, listing.clips

    def finding(severity: Severity, text: str, advice: str, of: tuple[str, ...] = ()) -> Finding:
        concerned = tuple(clip.path for clip in clips if set(clip.labels) & set(of))
        return Finding("labels", severity, text, concerned, advice)

    if not classes:
        yield finding(
            Severity.STOP,
            f"None of {counted(len(clips), 'clip')} has a label.",
            "An encoder can be pre-trained, but nothing can say whether it helps; give a list with --labels.",
        )
        return
    if len(classes) == 1:
        only = next(iter(classes))
        yield finding(
            Severity.STOP,
            f"All labelled clips have the label {only!r}, and a classifier needs two classes.",
            "Give labels that differ, by another column or by --labels.",
        )
    if sum(classes.values()) < FEW_CLIPS:
        yield finding(
            Severity.WARNING,
            f"There are only {counted(sum(classes.values()), 'labelled clip')}, so that no score can be trusted.",
            f"Label {FEW_CLIPS} clips or more, of several groups in each class.",
        )
    single = tuple(label for label, count in classes.items() if count == 1)
    few = tuple(label for label, count in classes.items() if 1 < count < FEW_OF_CLASS)
    if single:
        names = ", ".join(map(repr, single[:5])) + (", ..." if len(single) > 5 else "")
        yield finding(
            Severity.WARNING,
            f"{counted(len(single), 'label')} ({names}) {'has' if len(single) == 1 else 'have'} a single clip, which "
            "cannot be trained on and tested.",
            "Such clips are left out of training and test; label more, or join classes.",
            single,
        )
    if few:
        names = ", ".join(f"{label} ({classes[label]})" for label in few[:5])
        yield finding(
            Severity.NOTE,
            f"{counted(len(few), 'class')} {'has' if len(few) == 1 else 'have'} fewer than {FEW_OF_CLASS} clips: "
            f"{names}{', ...' if len(few) > 5 else ''}.",
            "Scores of rare classes are uncertain; label more of them.",
            few,
        )
