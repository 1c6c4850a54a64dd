"""Labels that can be told from how a clip was recorded: a confound, which makes every score meaningless.

For each class and each nuisance (sampling rate, level, hum, the device in the file name, ...), the simplest classifier
there is, a set of values or one threshold, tells the class from the others. It is fitted on some groups and tested on
the others, so that a nuisance of single recordings is none of a class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2dx.contract.wording import counted
from m2dx_specialise.findings import Finding, Severity
from m2dx_specialise.listing import Clip, Listing
from m2dx_specialise.measures import Measures

FOLDS = 5
LEAST_OF_CLASS = 8
_ERRORS = 3.0  # standard errors above chance
_MOST_VALUES = 30
_RATE, _BAND, _SIGNAL, _LEVEL, _NAMED = 0.75, 0.85, 0.85, 0.93, 0.85
"""Balanced accuracies that are no accident. Level and noise differ between honest classes, too: they need most."""


@dataclass(frozen=True)
class _Nuisance:
    name: str
    values: list[object]  # one a clip; None: not known. Numbers are compared, all else is the same or not
    least: float  # balanced accuracy
    show: Callable[[object], str] = str


def confounds(
    clips: Sequence[Clip], measures: Sequence[Measures | None], listing: Listing
) -> Iterator[Finding]:
    """A finding for each nuisance that tells a class, the class that it tells best first."""
    groups = np.array([clip.group or str(clip.path) for clip in clips])
    labels = [clip.labels for clip in clips]
    classes = [name for name, count in listing.classes.items() if count >= LEAST_OF_CLASS]
    if len(listing.classes) < 2:
        return
    for nuisance in _nuisances(measures, listing):
        told = []
        for name in classes:
            is_class = np.array([name in own for own in labels])
            labelled = np.array([bool(own) for own in labels])
            known = labelled & np.array([value is not None for value in nuisance.values])
            if known[is_class].mean() < 0.6 or known[labelled & ~is_class].mean() < 0.6:
                continue
            rows = np.flatnonzero(known)
            values = [nuisance.values[row] for row in rows]
            accuracy, error = _accuracy(values, is_class[rows], groups[rows])
            if accuracy >= nuisance.least and accuracy - _ERRORS * error > 0.5:
                told.append((accuracy, name, rows, is_class[rows]))
        if told:
            accuracy, name, rows, positive = max(told, key=lambda found: found[0])
            more = f" (and {counted(len(told) - 1, 'more label')})" if len(told) > 1 else ""
            how = _how([nuisance.values[row] for row in rows], positive, nuisance.show)
            yield Finding(
                "confound",
                Severity.WARNING,
                f"The label {name!r}{more} can be told from the {nuisance.name} alone: {how}; on groups that were not "
                f"looked at, {100 * accuracy:.0f} % are right, and 50 % would be chance.",
                tuple(dict.fromkeys(clips[row].path for row in rows[positive])),
                "A classifier may learn this instead of the sound: bring all clips to the same, or record each label "
                "in each way.",
            )
    yield from _single_groups(clips, classes)


def _nuisances(measures: Sequence[Measures | None], listing: Listing) -> Iterator[_Nuisance]:
    def of(take: Callable[[Measures], object]) -> list[object]:
        found = (None if one is None or one.silent else take(one) for one in measures)
        return [None if isinstance(value, float) and np.isnan(value) else value for value in found]

    def hertz(value: object) -> str:
        return f"{value:,.0f} Hz"

    def decibels(value: object) -> str:
        return f"{value:.0f} dB"

    yield _Nuisance("sampling rate", of(lambda one: f"{one.container.sample_rate:,} Hz"), _RATE)
    yield _Nuisance("number of channels", of(lambda one: f"{one.container.channels}"), _RATE)
    yield _Nuisance("file format", of(lambda one: one.container.format), _RATE)
    yield _Nuisance("upper end of the band", of(lambda one: one.edge_hz), _BAND, hertz)
    yield _Nuisance("hum", of(lambda one: one.hum_db), _SIGNAL, decibels)
    yield _Nuisance("DC offset", of(lambda one: abs(one.offset)), _SIGNAL, lambda value: f"{value:.4f}")
    yield _Nuisance("noise floor", of(lambda one: one.floor_db), _LEVEL, decibels)
    yield _Nuisance("level", of(lambda one: one.level_db), _LEVEL, decibels)
    used = {listing.proposal.label, listing.proposal.group}
    label = listing.proposal.label
    for choice in listing.groups:
        same = label is not None and _one_to_one(choice.values, label.values)
        if choice in used or same or len(set(choice.values)) > _MOST_VALUES:
            continue
        if len(choice.values) == len(measures):  # no file was left out
            yield _Nuisance(choice.where.removeprefix("the "), list(choice.values), _NAMED)


def _one_to_one(values: Sequence[str | None], others: Sequence[str | None]) -> bool:
    return len(set(zip(values, others, strict=True))) == len(set(others)) == len(set(values))


def _accuracy(
    values: list[object], positive: NDArray[np.bool_], groups: NDArray[np.str_]
) -> tuple[float, float]:
    """The balanced accuracy on groups that the classifier was not fitted to, and its standard error."""
    names, group = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[group] % FOLDS
    right = np.zeros(len(values), dtype=bool)
    for number in range(FOLDS):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not positive[train].any() or positive[train].all():
            continue
        tell = _fitted([values[row] for row in train], positive[train])
        right[test] = [tell(values[row]) == positive[row] for row in test]
    each = [right[positive], right[~positive]]
    units = [len(set(group[positive].tolist())), len(set(group[~positive].tolist()))]
    error = 0.5 * np.sqrt(sum(0.25 / max(count, 1) for count in units))
    return float(np.mean([one.mean() if len(one) else 0.0 for one in each])), float(error)


def _fitted(values: list[object], positive: NDArray[np.bool_]) -> Callable[[object], bool]:
    """Tells the class from a value: by the values that it has more often than others, or on one side of a threshold."""
    if not isinstance(values[0], float):
        of, others = _shares(values, positive)
        return lambda value: of[value] > others[value]
    threshold, above = _threshold(np.array(values, dtype=np.float64), positive)
    return lambda value: (value > threshold) == above  # type: ignore[operator]


def _shares(
    values: list[object], positive: NDArray[np.bool_]
) -> tuple[dict[object, float], dict[object, float]]:
    """Of each value, its share of the class and of the others."""
    of: dict[object, float] = defaultdict(float)
    others: dict[object, float] = defaultdict(float)
    count, rest = max(int(positive.sum()), 1), max(int((~positive).sum()), 1)
    for value, is_class in zip(values, positive.tolist(), strict=True):
        if is_class:
            of[value] += 1 / count
        else:
            others[value] += 1 / rest
    return of, others


def _threshold(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[float, bool]:
    """Where the class is best told from the others, and whether it lies above."""
    order = np.argsort(values, kind="stable")
    ordered, ahead = values[order], positive[order]
    below = np.cumsum(ahead) / max(ahead.sum(), 1) - np.cumsum(~ahead) / max((~ahead).sum(), 1)
    below[:-1][ordered[:-1] == ordered[1:]] = 0
    below[-1] = 0
    at = int(np.abs(below).argmax())
    middle = (ordered[at] + ordered[min(at + 1, len(ordered) - 1)]) / 2
    return float(middle), bool(below[at] < 0)


def _how(values: list[object], positive: NDArray[np.bool_], show: Callable[[object], str]) -> str:
    if isinstance(values[0], float):
        numbers = np.array(values, dtype=np.float64)
        threshold, above = _threshold(numbers, positive)
        hit = (numbers > threshold) == above
        what = f"{'above' if above else 'below'} {show(threshold)}"
    else:
        of, others = _shares(values, positive)
        typical = max(of, key=lambda value: of[value] - others[value])
        hit = np.array([value == typical for value in values])
        what = f"{show(typical)}"
    inside, outside = 100 * hit[positive].mean(), 100 * hit[~positive].mean()
    return f"{what} in {inside:.0f} % of its clips and {outside:.0f} % of the others"


def _single_groups(clips: Sequence[Clip], classes: Sequence[str]) -> Iterator[Finding]:
    """Classes that come from one group: a person, a device or a session that is the label."""
    members: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for label in clip.labels:
            members[label].add(clip.group or str(clip.path))
    single = [name for name in classes if len(members[name]) == 1]
    if single:
        named = ", ".join(map(repr, single[:5])) + (", ..." if len(single) > 5 else "")
        yield Finding(
            "confound",
            Severity.WARNING,
            f"All clips of {counted(len(single), 'label')} ({named}) are of one group "
            f"({next(iter(members[single[0]]))!r}), so that nothing can tell the label from the group.",
            tuple(dict.fromkeys(clip.path for clip in clips if set(clip.labels) & set(single))),
            "Record the label in other groups, too.",
        )
