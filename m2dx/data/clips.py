"""The pre-training data: data sets joined to one list of clips, with their labels per set."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError, PluginError
from m2dx.data.containers import audio_state, is_container


class PackedStrings(Sequence[str]):
    """Read-only strings in one buffer: millions of paths cost no Python objects, so forked workers share them."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(string) for string in strings]
        self._buffer = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # slices are not needed
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._buffer[start : self._ends[index]].tobytes())


@dataclass(frozen=True)
class SetLabels:
    """Labels of the clips in one data set, sparse: `classes[offsets[i]:offsets[i + 1]]` are clip i's, if any."""

    names: tuple[str, ...]
    offsets: NDArray[np.int64]
    classes: NDArray[np.int64]

    def multi_hot(self, clip_id: int) -> Tensor:
        """(C,) float32 with ones at the clip's classes, or all NaN if it has none."""
        classes = self.classes[self.offsets[clip_id] : self.offsets[clip_id + 1]]
        row = torch.zeros(len(self.names)) if len(classes) else torch.full((len(self.names),), torch.nan)
        row[torch.from_numpy(classes)] = 1.0
        return row


@dataclass(frozen=True)
class ClipList:
    """Clips without repeats, in the order of the sets and of their lists. `join_sets` makes one."""

    paths: PackedStrings
    starts: NDArray[np.float64]  # seconds
    durations: NDArray[np.float64]  # seconds; NaN: to the end of the file
    sets: Mapping[str, SetLabels]  # only the sets that have labels
    repeats: NDArray[np.int64]  # times that each clip counts in an epoch
    weights: NDArray[np.float64]  # chances in weighted sampling; 1 on the average of each set

    @property
    def draws(self) -> Tensor:
        """Clip ids that one pass over the data takes, each as often as it counts."""
        return torch.from_numpy(np.repeat(np.arange(len(self)), self.repeats))

    @property
    def draw_weights(self) -> Tensor:
        """Chances of `draws` in weighted sampling."""
        return torch.from_numpy(np.repeat(self.weights, self.repeats))

    @property
    def draw_shards(self) -> Tensor:
        """The shard of a pack that each of `draws` lies in, numbered from 0 on; -1: in none."""
        numbers: dict[str, int] = {}  # by folder
        fresh = itertools.count()
        for folder in map(os.path.dirname, self.paths):
            if folder not in numbers:
                numbers[folder] = next(fresh) if is_container(folder) else -1
        found = np.array([numbers[os.path.dirname(path)] for path in self.paths], dtype=np.int64)
        return torch.from_numpy(np.repeat(found, self.repeats))

    @property
    def label_names(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes by set; a set none of whose clips has a label has no entry."""
        return {name: labels.names for name, labels in self.sets.items()}

    @cached_property  # seconds for a million clips
    def fingerprint(self) -> str:
        """Changes with the files (names, sizes of up to 2,000, shards of packs), their segments, labels or weights."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.fsencode(path) + b"\0")
        for path in itertools.islice(self.paths, 0, None, max(len(self) // 2000, 1)):
            with contextlib.suppress(OSError):
                digest.update(b"%d," % os.stat(path).st_size)
        for folder, path in {os.path.dirname(path): path for path in self.paths}.items():
            if is_container(folder):
                digest.update(json.dumps(audio_state(Path(path))).encode())
        for values in (self.starts, self.durations, self.weights[self.weights != 1.0]):
            digest.update(values.tobytes())
        for name, labels in sorted(self.sets.items()):
            digest.update("\0".join((name, *labels.names)).encode("utf-8", "surrogateescape"))
            digest.update(labels.offsets.tobytes() + labels.classes.tobytes())
        return digest.hexdigest()[:16]

    @property
    def num_files(self) -> int:
        """Distinct files."""
        return len(set(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, clip_id: int) -> Clip:
        duration = float(self.durations[clip_id])
        length = None if np.isnan(duration) else duration
        path, start, weight = Path(self.paths[clip_id]), self.starts[clip_id], self.weights[clip_id]
        return Clip(path, float(start), length, weight=float(weight))

    def __iter__(self) -> Iterator[Clip]:
        return (self[clip_id] for clip_id in range(len(self)))

    def labels(self, clip_id: int) -> dict[str, Tensor]:
        """By labelled set: (C,) multi-hot, ordered as `label_names`; NaN if the clip has no label there."""
        return {name: labels.multi_hot(clip_id) for name, labels in self.sets.items()}


def join_sets(
    sets: Mapping[str, tuple[Dataset, str | None]], *, repeats: Mapping[str, int] | None = None
) -> ClipList:
    """The clips of several data sets, each with the split to use (None: all), as one list.

    `repeats` says how often the clips of a set count in an epoch (default once); a clip of several sets counts as
    often as the largest of theirs. Weights are brought to a mean of 1 in each set; a clip of several takes the largest.
    Clips with the same file, start and duration (to 1 ms) count once, with the labels of each set; a clip that
    one set lists twice has both lines' labels. Raises `AudioError` for a set without clips, or with labels that
    are not in its `label_names()`; `PluginError` for one that fails.
    """
    ids: dict[tuple[str, int, int | None], int] = {}
    clips: list[Clip] = []
    counts: list[int] = []
    weights: list[float] = []
    labels: dict[str, dict[int, dict[str, None]]] = {}
    for name, (dataset, split) in sets.items():
        count = (repeats or {}).get(name, 1)
        labels[name] = {}
        listed = _clips_of(name, dataset, split)
        scale = len(listed) / math.fsum(clip.weight for clip in listed)
        for clip in listed:
            path = os.path.abspath(clip.path)  # resolve() asks the disk for each part
            duration = None if clip.duration is None else round(clip.duration * 1000)
            clip_id = ids.setdefault((path, round(clip.start * 1000), duration), len(ids))
            if clip_id == len(clips):
                clips.append(clip if str(clip.path) == path else replace(clip, path=Path(path)))
                counts.append(count)
                weights.append(clip.weight * scale)
            counts[clip_id] = max(counts[clip_id], count)
            weights[clip_id] = max(weights[clip_id], clip.weight * scale)
            if clip.labels:
                labels[name].setdefault(clip_id, {}).update(dict.fromkeys(clip.labels))
    set_labels = {
        name: _set_labels(name, tuple(call_dataset(name, sets[name][0], "label_names")), by_clip, len(clips))
        for name, by_clip in labels.items()
        if by_clip
    }
    return pack_clips(clips, sets=set_labels, repeats=counts, weights=weights)


def pack_clips(
    clips: Sequence[Clip],
    *,
    sets: Mapping[str, SetLabels] | None = None,
    repeats: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
) -> ClipList:
    """The clips as they are, in little memory; without labels, unless `sets` has them; each once, or `repeats`."""
    return ClipList(
        paths=PackedStrings(os.fspath(clip.path) for clip in clips),
        starts=np.array([clip.start for clip in clips], dtype=np.float64),
        durations=np.array([np.nan if c.duration is None else c.duration for c in clips], dtype=np.float64),
        sets=sets or {},
        repeats=np.ones(len(clips), dtype=np.int64) if repeats is None else np.array(repeats, dtype=np.int64),
        weights=np.array([c.weight for c in clips] if weights is None else weights, dtype=np.float64),
    )


def list_clips(name: str, dataset: Dataset, split: str | None = None) -> list[Clip]:
    """`dataset.clips(split)`; `PluginError` that names the data set where it fails or gives something else."""
    clips = call_dataset(name, dataset, "clips", split)
    for clip in clips:
        problem = clip_problem(clip)
        # A list may know the split by another name, such as Testing.
        if problem is None and split is not None and clip.split != clips[0].split:
            both = f"{clips[0].path} is of {clips[0].split!r}, and {clip.path} of {clip.split!r}"
            problem = f"clips({split!r}) must give clips of that split alone, but {both}"
        if problem is not None:
            raise PluginError(f"{_label(name, dataset)}: {problem}")
    return clips


def clip_problem(clip: Any) -> str | None:
    """What is wrong with something that a data set lists as a clip; a million take about two seconds."""
    if not isinstance(clip, Clip):
        return f"clips() must give m2dx.Clip objects, but gave {clip!r}"
    if not isinstance(clip.path, Path):
        return f"a clip's path must be a pathlib.Path, but is {clip.path!r}"
    start, duration, weight = clip.start, clip.duration, clip.weight
    if not all(isinstance(value, Real) for value in (start, weight, 0.0 if duration is None else duration)):
        return f"start, duration and weight must be numbers, but {clip.path} has {start!r}, {duration!r}, {weight!r}"
    if not (0 <= start < math.inf and (duration is None or 0 < duration < math.inf)):
        has = f"{clip.path} has {start} and {duration}"
        return f"start must be seconds, 0 or more, and duration must be more than 0, but {has}"
    if not 0 < weight < math.inf:
        return f"the weight of a clip must be a number above 0, but {clip.path} has {weight}"
    if not isinstance(clip.labels, tuple) or not all(isinstance(x, str) and x for x in clip.labels):
        return f"labels must be a tuple of texts that are not empty, but {clip.path} has {clip.labels!r}"
    if not all(value is None or isinstance(value, str) for value in (clip.split, clip.group)):
        return (
            f"split and group must be texts, or None, but {clip.path} has {clip.split!r} and {clip.group!r}"
        )
    return None


def call_dataset(
    name: str,
    dataset: Dataset,
    method: Literal["clips", "label_names", "missing", "notes"],
    *arguments: str | None,
) -> list[Any]:
    """What a method of a data set gives; `PluginError` that names it where it fails, or gives no texts as it must."""
    with PluginError.blaming(f"{_label(name, dataset)}: {method}() failed"):
        given = getattr(dataset, method)(*arguments)
        if method == "clips":
            return list(given)
    texts = isinstance(given, list | tuple) and all(isinstance(item, str) for item in given)
    if not texts or (method == "label_names" and len(set(given)) < len(given)):
        once = " each once," if method == "label_names" else ""
        raise PluginError(
            f"{_label(name, dataset)}: {method}() must give a list of texts,{once} but gave {given!r}"
        )
    return list(given)


def _label(name: str, dataset: Dataset) -> str:
    return f"data set {name!r} (component {dataset.name!r})"


def _clips_of(name: str, dataset: Dataset, split: str | None) -> list[Clip]:
    clips = list_clips(name, dataset, split)
    if clips:
        return clips
    if split is None:
        raise AudioError(f"data set {name!r} must have clips, but has none")
    splits = sorted({clip.split for clip in list_clips(name, dataset) if clip.split is not None})
    there = "its splits are " + ", ".join(map(repr, splits)) if splits else "it has no splits"
    raise AudioError(f"split {split!r} of data set {name!r} must have clips, but has none; {there}")


def _set_labels(
    set_name: str, names: tuple[str, ...], by_clip: Mapping[int, Mapping[str, None]], num_clips: int
) -> SetLabels:
    unknown = {label for labels in by_clip.values() for label in labels}.difference(names)
    if unknown:
        raise AudioError(f"label {min(unknown)!r} of data set {set_name!r} is not among its label names")
    index = {name: i for i, name in enumerate(names)}
    counts = [len(by_clip.get(clip_id, ())) for clip_id in range(num_clips)]
    classes = [index[label] for clip_id in sorted(by_clip) for label in by_clip[clip_id]]
    return SetLabels(names, np.cumsum([0, *counts]), np.array(classes, dtype=np.int64))
