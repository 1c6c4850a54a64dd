"""What all tasks share: a layout that reads the folder, and the published numbers that it is held against."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import m2dx
from m2dx.contract.wording import some_of

TABLE = "M2D-X, table I"
MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Found:
    """What a folder has of a task."""

    clips: tuple[m2dx.Clip, ...]
    notes: tuple[str, ...] = ()  # what does not fit, one line each


class Layout(Protocol):
    """How a task lies on the disk."""

    def read(self, path: Path) -> Found:
        """The clips in a task's folder; `AudioError`, with file and line, where it is another layout."""


class TaskDataset(m2dx.Dataset):
    """A task: the entry of a subclass says what is published about it, and how its folder is read.

    Files that a list names and that are not there stay among the clips, so that they count as unusable when they are
    read.

    Options:
        path: the task's folder; `m2dx tasks` with its name prints what must be in it
    """

    task: m2dx.TaskInfo
    layout: Layout
    counts: Mapping[str, int] = {}
    """Published number of clips in each split or fold; empty: not known."""

    def __init__(self, *, path: Path) -> None:
        self.path = path

    def clips(self, split: str | None = None) -> list[m2dx.Clip]:
        """Clips of one split or fold, or all of them."""
        return [clip for clip in self._found.clips if split is None or clip.split == split]

    def label_names(self) -> tuple[str, ...]:
        """The labels that occur, sorted; numbers by their value."""
        names = {label for clip in self._found.clips for label in clip.labels}
        return tuple(sorted(names, key=lambda name: (int(name) if name.isdecimal() else -1, name)))

    def missing(self) -> list[str]:
        """What does not fit, which files are not there, and where the numbers of clips are not the published ones."""
        return [*self._found.notes, *self._absent(), *self._other_counts()]

    @cached_property
    def _found(self) -> Found:
        return self.layout.read(self.path)

    def _absent(self) -> list[str]:
        clips = self._found.clips
        absent = [str(clip.path) for clip in clips if not os.path.exists(clip.path)]
        return [f"{len(absent)} of {len(clips)} files do not exist, e.g. {some_of(absent)}"] if absent else []

    def _other_counts(self) -> list[str]:
        if not self.counts:
            return []
        here = Counter(clip.split for clip in self._found.clips)
        fold = "" if "train" in self.counts else "fold "
        other = [
            f"{fold}{split} has {here[split]} instead of {count}"
            for split, count in self.counts.items()
            if here[split] != count
        ]
        source = self.task.source
        return [f"the numbers of clips are not those of {source}: {some_of(other)}"] if other else []


def require(path: Path, names: Iterable[str]) -> None:
    """Raises `AudioError` where one of these files or folders is not in a task's folder."""
    wanted = list(names)
    folder = f"a folder with {', '.join(wanted)} in it" if wanted else "the task's folder"
    if not path.is_dir():
        what = "a file" if path.exists() else "missing"
        raise m2dx.AudioError(f"`path` must be {folder}, but {path} is {what}")
    absent = [name for name in wanted if not (path / name).exists()]
    if absent:
        raise m2dx.AudioError(f"`path` must be {folder}, but {path} lacks {', '.join(absent)}")
