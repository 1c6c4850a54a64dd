"""Labels that can be told from how a clip was recorded: a confound, which makes every score meaningless.

For each class and each nuisance (sampling rate, level, hum, the device in the file name, ...), the simplest classifier
there is, a set of values or a range, tells the class from the others. It is fitted on some groups and tested on
the others, so that a nuisance of single recordings is none of a class.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2dx.contract.wording import counted
from m2dx_specialise.findings import Finding
from m2dx_specialise.listing import Clip, Listing
from m2dx_specialise.measures import Measures
from m2dx_specialise.names import same

FOLDS = 5
LEAST_OF_CLASS = 8
_ERRORS = 4.0  # standard errors above chance
_FEWEST_WAYS = 60
"""In which groups could be dealt to a class and the others: of fewer, one parts them by chance too often."""
_MOST_VALUES = 30
_ROUNDING = 1e-9  # of sums of shares
_RATE, _SIGNAL, _LEVEL = 0.75, 0.85, 0.93
"""Balanced accuracies that are no accident. Level and noise differ between honest classes, too: they need most."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Nuisance:
    name: str
    values: Sequence[object]  # one a clip; None: not known. Numbers are compared, all else is the same or not
    least: float  # balanced accuracy
    form: str = "{}"


def confounds(clips: Sequence[Clip], found: Sequence[Measures | None], listing: Listing) -> Iterator[Finding]:
    """A finding for each nuisance that tells a class, the class that it tells best first."""
    if len(listing.classes) < 2:
        return
    groups = np.array([clip.group or str(clip.path) for clip in clips])
    classes = [name for name, count in listing.classes.items() if count >= LEAST_OF_CLASS]
    labelled = np.array([bool(clip.labels) for clip in clips])
    for nuisance in _nuisances(found, listing):
        told = []
        known = labelled & np.array([value is not None for value in nuisance.values])
        rows = np.flatnonzero(known).tolist()
        values, group = [nuisance.values[row] for row in rows], groups[rows]
        if len(set(values)) < 2:
            continue
        for name in classes:
            is_class = np.array([name in clip.labels for clip in clips])
            sides = (is_class, labelled & ~is_class)
            if not all(side.any() and known[side].mean() >= 0.6 for side in sides):
                continue
            positive = is_class[rows]
            ours, theirs = (set(group[side].tolist()) for side in (positive, ~positive))
            if not ours & theirs and math.comb(len(ours | theirs), len(ours)) < _FEWEST_WAYS:
                continue
            how, tell = _fitted(values, positive, nuisance.form)
            hit = np.array([tell(value) for value in values])
            hits = hit[positive].mean(), hit[~positive].mean()
            if 0.5 + (hits[0] - hits[1]) / 2 < nuisance.least:
                continue
            accuracy, error = _accuracy(values, positive, group)
            if accuracy >= nuisance.least and accuracy - _ERRORS * error > 0.5:
                told.append((accuracy, name, how, hits))
        if told:
            accuracy, name, how, hits = max(told, key=lambda of: of[0])
            more = f" (and {counted(len(told) - 1, 'more label')})" if len(told) > 1 else ""
            yield Finding(
                "confound",
                "warning",
                f"The label {name!r}{more} can be told from the {nuisance.name} alone: {how} in "
                f"{100 * hits[0]:.0f} % of its clips and {100 * hits[1]:.0f} % of the others; on groups that were not "
                f"looked at, {100 * accuracy:.0f} % are right, and 50 % would be chance.",
                tuple(dict.fromkeys(clips[row].path for row in rows if name in clips[row].labels)),
                "A classifier may learn this instead of the sound: bring all clips to the same, or record each label "
                "in each way.",
            )


def _nuisances(measures: Sequence[Measures | None], listing: Listing) -> Iterator[_Nuisance]:
    for name, attribute, least, form in (
        ("sampling rate", "sample_rate", _RATE, "{:,} Hz"),
        ("number of channels", "channels", _RATE, "{}"),
        ("file format", "format", _RATE, "{}"),
        ("upper end of the band", "edge_hz", _SIGNAL, "{:,.0f} Hz"),
        ("hum", "hum_db", _SIGNAL, "{:.0f} dB"),
        ("DC offset", "offset", _SIGNAL, "{:.2g}"),
        ("noise floor", "floor_db", _LEVEL, "{:.0f} dB"),
        ("level", "level_db", _LEVEL, "{:.0f} dB"),
    ):
        found = [None if of is None or of.silent else getattr(of, attribute) for of in measures]
        values = [None if isinstance(of, float) and np.isnan(of) else of for of in found]
        if attribute == "offset":
            values = [None if of is None else abs(of) for of in values]
        yield _Nuisance(name, values, least, form)
    label = listing.label
    for choice in listing.groups:
        if choice.running or choice in (label, listing.group) or len(set(choice.values)) > _MOST_VALUES:
            continue
        if label is None or not same(choice.values, label.values):
            yield _Nuisance(choice.where.removeprefix("the "), choice.values, _SIGNAL)


def _accuracy(values: Sequence[object], positive: Bools, groups: NDArray[np.str_]) -> tuple[float, float]:
    """The balanced accuracy on groups that the classifier was not fitted to, and its standard error."""
    names, group = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[group] % FOLDS
    right = np.zeros(len(values), dtype=bool)
    for number in range(FOLDS):
        train, test = (np.flatnonzero(of).tolist() for of in (fold != number, fold == number))
        if positive[train].any() and not positive[train].all():
            _, tell = _fitted([values[row] for row in train], positive[train])
            right[test] = [tell(values[row]) == positive[row] for row in test]
    shares, variance = [], 0.0
    for side in (positive, ~positive):
        share, count = right[side].mean() if side.any() else 0.0, len(np.unique(group[side]))
        shares.append(share)
        # Agresti and Coull's interval: few groups that are all right prove little
        likely = (share * count + 2) / (count + 4)
        variance += likely * (1 - likely) / (count + 4)
    return float(np.mean(shares)), float(0.5 * np.sqrt(variance))


def _fitted(
    values: Sequence[object], positive: Bools, form: str = "{}"
) -> tuple[str, Callable[[object], bool]]:
    """Tells the class from a value: by those that it has more often than others, or by a range of numbers."""
    if isinstance(values[0], float):
        low, high = _range_of(np.array(values, dtype=np.float64), positive)
        above, below = (form.format(end) if np.isfinite(end) else "" for end in (low, high))
        if above and below:
            how = f"between {above} and {below}"
        else:
            how = f"above {above}" if above else f"below {below}"
        return how, lambda value: low <= value < high
    more: dict[object, float] = defaultdict(float)  # share of the class above that of the others
    for value, is_class in zip(values, positive.tolist(), strict=True):
        more[value] += 1 / positive.sum() if is_class else -1 / (~positive).sum()
    named = sorted(
        (value for value, lead in more.items() if lead > _ROUNDING), key=lambda value: -more[value]
    )
    how = " or ".join(form.format(value) for value in named[:3]) + (" or others" if len(named) > 3 else "")
    return how, lambda value: value in named


def _range_of(numbers: NDArray[np.float64], positive: Bools) -> tuple[float, float]:
    """Where the class has most of its values beyond the share of the others; ends lie halfway to what is outside."""
    order = np.argsort(numbers, kind="stable")
    ordered, first = np.unique(numbers[order], return_index=True)
    shares = np.where(positive[order], 1 / positive.sum(), -1 / (~positive).sum())
    lead = np.concatenate([[0.0], np.cumsum(np.add.reduceat(shares, first))])  # of all below
    least = np.minimum.accumulate(lead)
    end = int((lead[1:] - least[:-1]).argmax()) + 1
    start = int(lead[:end].argmin())
    edges = np.concatenate([[-np.inf], (ordered[1:] + ordered[:-1]) / 2, [np.inf]])
    return float(edges[start]), float(edges[end])
