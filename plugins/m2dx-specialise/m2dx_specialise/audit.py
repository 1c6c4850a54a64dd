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
from m2dx_specialise.findings import SEVERITIES, Finding, Severity
from m2dx_specialise.listing import Clip, Listing
from m2dx_specialise.measures import Measures, measure
from m2dx_specialise.origins import Rows, cuts, leaks, numbers
from m2dx_specialise.sketches import Moments

THREADS = 2
FEW_CLIPS, FEW_OF_CLASS = 50, 10
MOST_NAMED = 5  # labels that a finding names
_Read = tuple[Measures | None, Moments | None, str | None]


@dataclass(frozen=True)
class Audit:
    """What is found, and what a division follows from; clips are told by their indices in the listing."""

    findings: tuple[Finding, ...]  # the gravest first
    duplicates: tuple[Duplicate, ...]
    cuts: tuple[Rows, ...]  # clips of the same recording
    unusable: frozenset[int]  # clips that cannot be read, or are silent


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
    if progress is not None:
        progress(done / 60, max(round(total / 60), 1), "compares the clips")
    duplicates = find_duplicates(clips, measures, moments)
    by_names = not listing.groups_given
    origins = cuts(clips, by_names=by_names)
    findings = [*_bad_files(bad, len(clips) + len(listing.bad)), *_labels(listing)]
    findings += [*leaks(clips, duplicates, origins), *(numbers(clips) if by_names else ())]
    findings += [*confounds(clips, measures, listing), *defects(clips, measures)]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    unusable = frozenset(row for row, of in enumerate(measures) if of is None or of.silent)
    return Audit(tuple(findings), tuple(duplicates), origins, unusable)


def _read(clips: tuple[Clip, ...], total: float) -> Iterator[_Read]:
    """What each clip measures or why it cannot be read, in order, some of them ahead."""

    def attempt(clip: Clip) -> _Read:
        try:
            return *measure(clip, total), None
        except m2dx.AudioError as error:
            return None, None, str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        rest = iter(clips)
        ahead = [pool.submit(attempt, clip) for clip in islice(rest, 4 * THREADS)]
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(attempt, clip) for clip in islice(rest, 1)]


def _bad_files(bad: dict[Path, str], total: int) -> Iterator[Finding]:
    if bad:
        path, reason = next(iter(bad.items()))
        text = f"{len(bad)} of {counted(total, 'file')} cannot be read, e.g. {path}: {reason}."
        yield Finding("bad files", "warning", text, tuple(bad), "They are left out; mend or remove them.")


def _labels(listing: Listing) -> Iterator[Finding]:
    """Whether the labels are enough for a classifier and its test."""
    classes, clips = listing.classes, listing.clips
    total = sum(classes.values())

    def finding(severity: Severity, text: str, advice: str, of: list[str] | None = None) -> Finding:
        concerned = tuple(clip.path for clip in clips if set(clip.labels) & set(of or ()))
        return Finding("labels", severity, text, concerned, advice)

    if not classes:
        text = f"None of {counted(len(clips), 'clip')} has a label."
        advice = "An encoder can be trained, but nothing can say whether it helps; give a list with --labels."
        yield finding("no verdict", text, advice)
        return
    if len(classes) == 1:
        text = f"All labelled clips have the label {next(iter(classes))!r}, but a classifier needs two."
        yield finding("no verdict", text, "Give labels that differ, by another column or by --labels.")
    if total < FEW_CLIPS:
        text = f"There are only {counted(total, 'labelled clip')}, so that no score can be trusted."
        yield finding("warning", text, f"Label {FEW_CLIPS} clips or more, of several groups in each class.")
    if few := [label for label, count in classes.items() if count < FEW_OF_CLASS]:
        named = ", ".join(f"{label!r} ({classes[label]})" for label in few[:MOST_NAMED])
        more = ", ..." if len(few) > MOST_NAMED else "."
        text = f"Of some classes there are fewer than {FEW_OF_CLASS} clips: {named}{more}"
        yield finding("note", text, "Scores of rare classes are uncertain; label more of them.", few)
