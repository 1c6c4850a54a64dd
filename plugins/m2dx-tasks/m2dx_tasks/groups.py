"""Layouts without an official split: files whose names tell label and group; whole groups are divided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

import m2dx
from m2dx.contract.wording import some_of
from m2dx_tasks.dataset import Found, TaskDataset, require

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Named:
    """What the name of a file says."""

    label: str
    group: str
    key: str  # of its split in the published list


@dataclass(frozen=True)
class SplitList:
    """The list of the split that the paper used."""

    file: str
    column: str  # of what is divided; another column is `split`
    key: Callable[[str], str]  # from a cell of that column


@dataclass(frozen=True)
class GroupedFiles:
    """Files whose names tell label and group. The published list divides them, or else whole groups are divided."""

    folder: str  # with the files, in the task's folder
    naming: str  # of a file, for messages
    name: Callable[[PurePath], Named | None]  # from the path in that folder; None: not named like that
    groups: str  # what they are, in the plural
    shares: tuple[float, float, float]  # of the groups, in train, valid, test
    split_list: SplitList
    extensions: tuple[str, ...] | None = None  # None: all that soundfile reads
    chosen_list: Path | None = None  # None: the one in the task's folder, if it is there

    def read(self, path: Path) -> Found:
        """The clips, sorted by path."""
        require(path, [] if self.folder == "." else [self.folder])
        files = m2dx.list_audio(path / self.folder, extensions=self.extensions)
        named = [(file, self.name(file.relative_to(files.folder))) for file in files.readable]
        notes = files.missing()
        if others := [str(file) for file, what in named if what is None]:
            notes.append(f"{len(others)} files are not {self.naming} and left out, e.g. {some_of(others)}")
        whole = [(file, what) for file, what in named if what is not None]
        if not whole:
            raise m2dx.AudioError(f"there must be files {self.naming} in {files.folder}, but there are none")
        split_of, more = self._division(path, [what for _, what in whole])
        clips = [
            m2dx.Clip(file, labels=(what.label,), split=split, group=what.group)
            for file, what in whole
            if (split := split_of(what)) is not None
        ]
        if not clips:
            raise m2dx.AudioError(f"there must be files of the list's in {files.folder}, but there are none")
        if unlisted := len(whole) - len(clips):
            more.append(f"{unlisted} of {len(whole)} files are not in the list of the split and left out")
        return Found(tuple(clips), (*notes, *more))

    def _division(
        self, path: Path, named: Sequence[Named]
    ) -> tuple[Callable[[Named], str | None], list[str]]:
        """What gives the split of a file (None: it is not listed), and lines about it."""
        file = self.chosen_list or path / self.split_list.file
        if self.chosen_list is not None or file.exists():
            listed = read_split_list(file, self.split_list)
            return lambda what: listed.get(what.key), []
        divided = divide_groups({what.group for what in named}, self.shares)
        shares = "/".join(f"{share:.0%}"[:-1] for share in self.shares)
        return lambda what: divided[what.group], [
            f"without the list {file} the {self.groups} are divided {shares} by m2dx, not as in the paper"
        ]


def read_split_list(path: Path, layout: SplitList) -> dict[str, str]:
    """Key -> split of a published list; `AudioError` with file and line."""
    found: dict[str, str] = {}

    def parse(row: dict[str, str]) -> None:
        cell, split = row[layout.column], row["split"]
        if not cell:
            raise ValueError(f"`{layout.column}` must be given, but is empty")
        if split not in SPLITS:
            raise ValueError(f"`split` must be train, valid or test, but is {split!r}")
        if found.setdefault(layout.key(cell), split) != split:
            raise ValueError(f"{cell} must be in one split, but is in {found[layout.key(cell)]} already")

    m2dx.read_table(path, parse, columns=(layout.column, "split"))
    return found


def divide_groups(groups: Iterable[str], shares: tuple[float, float, float]) -> dict[str, str]:
    """Group -> split: the sorted groups in a fixed random order, cut by the shares; the same on every machine.

    It is how TensorFlow Datasets divides the speakers of CREMA-D and VoxForge, so that the same speakers give its
    split.
    """
    order = sorted(set(groups))
    np.random.RandomState(0).shuffle(order)  # the generator of that split
    first = int(shares[0] * len(order))
    second = int((shares[0] + shares[1]) * len(order))
    return {group: SPLITS[(number >= first) + (number >= second)] for number, group in enumerate(order)}


class DividedTask(TaskDataset):
    """A task without an official split.

    Options:
        split_list: list of the split; default the published one in `path`, and without it a split by m2dx
    """

    layout: GroupedFiles

    def __init__(self, *, path: Path, split_list: Path | None = None) -> None:
        super().__init__(path=path)
        self.layout = replace(type(self).layout, chosen_list=split_list)
