"""The parts of a division: what is trained on, chosen by and tested, and the tasks that they are scored as."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from m2dx_classify.sources import LabelledClips

import m2dx
from m2dx.contract.components import Fold
from m2dx.contract.wording import counted
from m2dx.data.csv_list import CsvDataset
from m2dx.data.division import deal
from m2dx.evaluation.features import FeatureCache
from m2dx.evaluation.splits import SPLITS
from m2dx_specialise.judge import FEWEST_TESTED
from m2dx_specialise.names import FEWEST_GROUPS

VALID_SHARES, FEWEST_VALID = (0.25, 0.33, 0.4, 0.5), 0.2
"""Of training and validation part together: the validation part that is dealt (the first with which both have two
classes, and the training part two groups; the last is half of all but the largest group), and the smallest one that is
kept."""
TEST_FOLDS = 0.4
CROSSED = 1 / 3  # of the clips of the training part, those that a test part must have that is trained on, too
LONGEST_SECONDS = 10.0, 60.0  # of a clip that is encoded: where most are shorter than the first, and of all
MOST_CLIPS, MOST_SECONDS = 6_000, 60_000.0  # of a part that is scored
FEWEST_CLIPS = 40  # labelled clips that a verdict needs


@dataclass(frozen=True)
class Parts:
    """The clips of a division."""

    train: tuple[m2dx.Clip, ...]  # labelled
    valid: tuple[m2dx.Clip, ...]  # labelled; candidates are chosen on it, and never learn its labels
    test: tuple[m2dx.Clip, ...]  # labelled; seen once
    unlabelled: tuple[m2dx.Clip, ...] = ()

    @classmethod
    def read(cls, division: Path, pool: Path) -> Parts:
        """From the list of a division, and that of what may be trained on."""
        lists = (CsvDataset(path=path).clips() for path in (division, pool) if path.exists())
        return cls.of([clip for clips in lists for clip in clips])

    @classmethod
    def of(cls, clips: Sequence[m2dx.Clip]) -> Parts:
        """The same, of clips. A small validation part is dealt anew; of folds, the last two of five are the test."""
        labelled = [clip for clip in clips if clip.labels]
        tested = {"test", *_tested_folds(labelled)}
        test = tuple(clip for clip in labelled if clip.split in tested)
        rest = [clip for clip in labelled if clip.split not in tested]
        is_valid = [int(clip.split == "valid") for clip in rest]
        if sum(is_valid) < FEWEST_VALID * len(rest) and len({clip.unit for clip in rest}) > 1:
            is_valid = _dealt_valid(rest)
        train, valid = _parted(rest, is_valid)
        return cls(train, valid, test, tuple(clip for clip in clips if not clip.labels))

    @property
    def labelled(self) -> tuple[m2dx.Clip, ...]:
        """Of all parts."""
        return self.train + self.valid + self.test

    @property
    def others(self) -> tuple[m2dx.Clip, ...]:
        """Clips without labels, of no group that is chosen by or tested."""
        held = {clip.group for clip in (*self.valid, *self.test)} - {None}
        return tuple(clip for clip in self.unlabelled if clip.group not in held)

    @property
    def crossed(self) -> Parts | None:
        """Training and test part in each other's place, where one test says little: of folds, and of few groups.

        None: it says enough, the test part is too small to train on, or there could be no verdict.
        """
        is_small = self.folds or len({clip.unit for clip in self.test}) < FEWEST_TESTED
        known = {
            clip.labels for clip in (*self.test, *(self.valid if self.folds else ()))
        }  # what `back` fits
        tested = tuple(clip for clip in self.train if clip.labels in known)
        other = replace(self, train=self.test, test=tested)
        is_enough = len(self.test) >= CROSSED * len(self.train)
        return other if is_small and is_enough and other.problem is None else None

    @property
    def folds(self) -> tuple[str, ...]:
        """Their names; none where the division is one into training and test part."""
        names = {str(clip.split) for clip in self.labelled}
        return () if names & set(SPLITS) else tuple(sorted(names))

    @property
    def problem(self) -> str | None:
        """Why there can be no verdict, in words; None: there can be one."""
        count = len(self.labelled)
        if not count:
            return "there are no labels"
        classes = {name for clip in self.labelled for name in clip.labels}
        if len(classes) < 2:
            return f"all labels are {min(classes)!r}, and one class is nothing to tell apart"
        if any(len(clip.labels) > 1 for clip in self.labelled):
            return "some clips have several labels, and a verdict is for one label a clip"
        if count < FEWEST_CLIPS:
            return f"{count} labelled clips are too few to tell encoders apart; {FEWEST_CLIPS} is the least"
        return self.of_division

    @property
    def of_division(self) -> str | None:
        """The same, as far as another division of the clips might do."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        lacking = [name for name, part in parts.items() if len({clip.labels for clip in part}) < 2]
        if lacking:
            units = defaultdict[str, set[tuple[str, str]]](set)
            for clip in self.labelled:
                units[clip.labels[0]].add(clip.unit)
            name, few = min(units.items(), key=lambda of: len(of[1]))
            few_groups = f"{name!r} is of {counted(len(few), 'group')}, and groups must stay whole"
            return f"the {' and '.join(lacking)} part has fewer than two classes: {few_groups}"
        if len({clip.unit for clip in self.train}) < 2:
            return (
                f"the training part is of one group, and two are the least; {FEWEST_GROUPS} in all would do"
            )
        return None

    def task(self, name: Literal["choice", "test"], folder: Path, *, seed: int = 0) -> m2dx.ClipTask:
        """The task that candidates are chosen by (fitted to the training part, scored on the validation part), or the
        test (fitted to both). Features are kept in a folder."""
        fitted = self.train if name == "choice" else self.train + self.valid
        scored = self.valid if name == "choice" else self.test
        unit = unit_seconds(self.train + self.valid)
        clips = [replace(clip, split="train") for clip in _some(fitted, unit, seed)]
        clips += [replace(clip, split="test") for clip in _some(scored, unit, seed)]
        return m2dx.ClipTask.from_dataset(
            name,
            LabelledClips(name, clips),
            unit_seconds=unit,
            short_clips="pad",
            shared_groups="warn",
            cache=FeatureCache(folder),
        )

    def back(self, task: m2dx.ClipTask) -> Fold | None:
        """Of the test, the fold with training and test part in each other's place; None where `crossed` is.

        In a division of the data nothing is fitted to the validation part: what is not known to be of one group is more
        often in it and in the training part than in the test part.
        """
        other, rows = self.crossed, defaultdict[str, list[int]](list)
        if other is None:
            return None
        parts = {"train": other.train, "valid": other.valid, "test": other.test}
        part_of = {_key(clip): name for name, part in parts.items() for clip in part}
        for row, clip in enumerate(task.clips):
            rows[part_of.get(_key(clip), "")].append(row)
        train, valid, test = (np.array(rows[name], dtype=np.int64) for name in parts)
        return Fold("back", train, valid, test, valid[:0] if self.folds else valid)

    def in_turn(self, task: m2dx.ClipTask) -> m2dx.ClipTask:
        """The test with each fold, or each of two parts, as the test part in turn, for encoders that have learnt
        nothing of the clips.

        It has more clips than the test; where one test is enough, it is the test.
        """
        if not self.folds:
            back = self.back(task)
            return task if back is None else replace(task, folds=(*task.folds, back))
        folds = {_key(clip): str(clip.split) for clip in self.labelled}
        clips = tuple(replace(clip, split=folds[_key(clip)]) for clip in task.clips)
        of = np.array([clip.split for clip in clips])
        parts = {name: (np.flatnonzero(of != name), np.flatnonzero(of == name)) for name in self.folds}
        in_turn = tuple(Fold(name, rest, rest[:0], test) for name, (rest, test) in parts.items())
        return replace(task, clips=clips, folds=in_turn)


def _key(clip: m2dx.Clip) -> tuple[Path, float]:
    return clip.path, clip.start


def _tested_folds(clips: Sequence[m2dx.Clip]) -> Sequence[str]:
    """The last two of five folds; or two before them that leave fewer classes without training or test clips."""
    of: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        of[str(clip.split)].update(clip.labels)
    folds, classes = sorted(of.keys() - set(SPLITS)), set[str]().union(*of.values())
    size = min(max(int(TEST_FOLDS * len(folds)), 1), len(folds))

    def lacking(tested: Sequence[str]) -> int:
        sides = tested, [fold for fold in folds if fold not in tested]
        return sum(len(classes.difference(*(of[fold] for fold in side))) for side in sides)

    return min((folds[end - size : end] for end in range(len(folds), size - 1, -1)), key=lacking)


def _dealt_valid(clips: Sequence[m2dx.Clip]) -> list[int]:
    """1 for the clips that are dealt to the validation part, 0 for the others."""
    largest = max(Counter(clip.unit for clip in clips).values()) / len(clips)
    for share in (*VALID_SHARES, (1 - largest) / 2):
        is_valid: list[int] = deal(clips, [1 - share, share]).tolist()
        parts = train, _ = _parted(clips, is_valid)
        if (
            all(len({clip.labels for clip in part}) > 1 for part in parts)
            and len({c.unit for c in train}) > 1
        ):
            break
    return is_valid


def _parted(clips: Sequence[m2dx.Clip], is_valid: Sequence[int]) -> list[tuple[m2dx.Clip, ...]]:
    return [tuple(clip for clip, of in zip(clips, is_valid, strict=True) if of == which) for which in (0, 1)]


def _some(clips: Sequence[m2dx.Clip], unit: float, seed: int) -> list[m2dx.Clip]:
    """All of them, or as many at random as `MOST_CLIPS` and, at so many seconds each, `MOST_SECONDS` allow."""
    most = min(MOST_CLIPS, int(MOST_SECONDS / unit))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(clips))[:most])
    return [clips[row] for row in chosen.tolist()]


def unit_seconds(clips: Sequence[m2dx.Clip]) -> float:
    """The length that clips are brought to: their mean, where a few long ones count as 10 s, and all as a minute."""
    seconds = np.array([clip.duration or 0.0 for clip in clips])
    longest = float(np.clip(np.median(seconds), *LONGEST_SECONDS))
    return max(round(float(np.minimum(seconds, longest).mean()), 3), 0.1)
