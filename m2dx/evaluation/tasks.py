"""Labelled tasks that encoders are scored on: checked clips, targets, divisions, and the features of each encoder."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from m2dx.contract.components import BadClip, Clip, ClipEncoder, Dataset, Features, Fold
from m2dx.contract.errors import AudioError, ImageError, RecipeError, TrainingError
from m2dx.data.clips import list_clips, missing_of, names_of
from m2dx.data.images import read_image
from m2dx.data.reading import probe, read_wav
from m2dx.encoder.images import ImageEncoder
from m2dx.evaluation.feature_cache import FeatureCache
from m2dx.evaluation.features import READING_THREADS, audio_batches, extract, in_batches, read_ahead
from m2dx.evaluation.splits import SPLITS, divide, shared_groups

logger = logging.getLogger(__name__)

MOST_TOLD = 20
"""Unusable clips that a line is written for, at most."""
SHOWN = 5
"""Examples that an error or a warning lists, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipTask:
    """A labelled set of clips, divided for training and testing a classifier on frozen features."""

    name: str
    clips: tuple[Clip, ...]  # the usable ones, with their durations
    label_names: tuple[str, ...]
    folds: tuple[Fold, ...]  # one for train/valid/test splits, several for cross validation
    unit_seconds: float  # length that each clip is cropped (from its start) or filled to
    short_clips: Literal["pad", "repeat"]
    bad: tuple[BadClip, ...] = ()
    warnings: tuple[str, ...] = ()
    cache: FeatureCache | None = None  # where features are kept beyond this process
    _features: WeakKeyDictionary[ClipEncoder, Features] = field(default_factory=WeakKeyDictionary, repr=False)

    @classmethod
    def from_dataset(
        cls,
        name: str,
        dataset: Dataset,
        *,
        unit_seconds: float | None = None,
        short_clips: Literal["pad", "repeat"] = "pad",
        max_bad_fraction: float = 0.05,
        shared_groups: Literal["error", "warn"] = "error",
        cache: FeatureCache | None = None,
    ) -> ClipTask:
        """The task of a data set, after reading each clip once to find unusable files.

        `unit_seconds` defaults to that of a published task (`dataset.task`), else to the mean length of the clips
        (M2D-X, IV-B). `shared_groups` says what follows from a group in both train and test, or in two folds; "warn"
        is for official splits that have such groups. Where a published task is not as published, the warnings say it.

        Raises RecipeError, with every problem found, where clips lack a label or a split, splits are unusable, or
        groups leak; TrainingError where more than `max_bad_fraction` of the clips cannot be read; PluginError where the
        data set fails.
        """
        clips, label_names = _checked_lists(name, dataset)
        clips, bad, seconds = cls._usable(clips, dataset, unit_seconds)
        _report_bad(name, bad, total=len(clips) + len(bad), max_bad_fraction=max_bad_fraction)
        warnings = _leaks(name, clips, strict=shared_groups == "error")
        targets = multi_hot(clips, label_names)
        folds = _divided(name, clips, targets)
        warnings += _untrained_classes(folds, targets, label_names)
        warnings += _unlike_published(name, dataset, clips, label_names)
        for warning in warnings:
            logger.warning("evaluation task %r: %s", name, warning)
        return cls(
            name, tuple(clips), label_names, folds, seconds, short_clips, tuple(bad), tuple(warnings), cache
        )

    @classmethod
    def _usable(
        cls, clips: list[Clip], dataset: Dataset, unit_seconds: float | None
    ) -> tuple[list[Clip], list[BadClip], float]:
        """The clips that can be read, with their durations, those that cannot, and the length of a unit (s)."""
        clips, bad = partition(clips, _with_duration)
        published = None if dataset.task is None else dataset.task.unit_seconds
        mean = float(np.mean([clip.duration for clip in clips])) if clips else 0.0
        seconds = unit_seconds or published or mean
        clips, unreadable = partition(clips, lambda clip: _readable(clip, seconds))
        return clips, bad + unreadable, seconds

    @property
    def multi_label(self) -> bool:
        """Whether any clip has more than one label; then targets are multi-hot and the metric is mAP."""
        return _multi_label(self.clips)

    @property
    def metric(self) -> str:
        """ "accuracy", or "mAP" for multi-label tasks."""
        return _metric(self.clips)

    def targets(self) -> NDArray[np.float32]:
        """Multi-hot targets (n, C), in the order of `clips` and `label_names`."""
        return multi_hot(self.clips, self.label_names)

    def features(self, encoder: ClipEncoder, *, batch_size: int = 32) -> Features:
        """Frozen clip features of an encoder; computed once per encoder object, whose weights must not change.

        With a cache, they are kept on disk too.
        """
        found = self._features.get(encoder)
        if found is None:
            compute = extract if self.cache is None else self.cache.features
            found = self._features[encoder] = compute(encoder, self, batch_size=batch_size)
        return found

    def batches(self, encoder: ClipEncoder, batch_size: int) -> Iterator[Tensor]:
        """The clips in order as the encoder wants them, batches (B, N), each of `unit_seconds`: see `audio_batches`."""
        return audio_batches(self, encoder.sample_rate, batch_size)


def check_dataset(name: str, dataset: Dataset, *, shared_groups: Literal["error", "warn"] = "error") -> None:
    """Raises what `ClipTask.from_dataset` would raise for the lists of a data set; reads no audio file."""
    clips, label_names = _checked_lists(name, dataset)
    _leaks(name, clips, strict=shared_groups == "error")
    _divided(name, clips, multi_hot(clips, label_names))


def multi_hot(clips: Sequence[Clip], label_names: Sequence[str]) -> NDArray[np.float32]:
    """Targets (n, C) with a 1 for each label of a clip."""
    column = {label: number for number, label in enumerate(label_names)}
    targets = np.zeros((len(clips), len(label_names)), dtype=np.float32)
    for row, clip in enumerate(clips):
        targets[row, [column[label] for label in clip.labels]] = 1.0
    return targets


def _multi_label(clips: Iterable[Clip]) -> bool:
    return any(len(clip.labels) > 1 for clip in clips)


def _metric(clips: Iterable[Clip]) -> str:
    return "mAP" if _multi_label(clips) else "accuracy"


def _checked_lists(name: str, dataset: Dataset) -> tuple[list[Clip], tuple[str, ...]]:
    """Clips and label names; RecipeError with every problem found."""
    clips, label_names = list_clips(name, dataset), names_of(name, dataset)
    if not clips:
        raise RecipeError(f"evaluation task {name!r} has no clips. {' '.join(dataset.missing())}".rstrip())
    known = set(label_names)
    problems = [
        _counted(what, [clip for clip in clips if wrong(clip)])
        for what, wrong in (
            ("have no label", lambda clip: not clip.labels),
            ("have no split or fold", lambda clip: clip.split is None),
            ("have a label that is not in the data set's label names", lambda clip: set(clip.labels) - known),
        )
        if any(map(wrong, clips))
    ]
    if len(known) < 2:
        problems.append(f"there must be two classes or more, but there are {len(known)}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise RecipeError(f"evaluation task {name!r} cannot be used:\n{lines}")
    return clips, label_names


def _counted(what: str, clips: list[Clip]) -> str:
    return f"{len(clips)} clips {what}: {_examples(str(clip.path) for clip in clips)}"


def _examples(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


def partition(clips: list[Clip], check: Callable[[Clip], Clip]) -> tuple[list[Clip], list[BadClip]]:
    """Clips that `check` accepts, as it returns them, and those that it refuses with an AudioError or ImageError."""

    def attempt(clip: Clip) -> Clip | BadClip:
        try:
            return check(clip)
        except (AudioError, ImageError) as error:
            return BadClip(clip.path, str(error))

    with ThreadPoolExecutor(READING_THREADS) as pool:
        results = list(pool.map(attempt, clips))
    good = [result for result in results if isinstance(result, Clip)]
    return good, [result for result in results if isinstance(result, BadClip)]


def _with_duration(clip: Clip) -> Clip:
    if clip.duration is not None:
        return clip
    duration = probe(clip.path).seconds - clip.start
    if duration <= 0:
        raise AudioError(
            f"the clip starts at {clip.start:g} s, but the file ends at {clip.start + duration:g} s"
        )
    return replace(clip, duration=duration)


def _readable(clip: Clip, unit_seconds: float) -> Clip:
    assert clip.duration is not None
    read_wav(clip.path, start=clip.start, duration=min(clip.duration, unit_seconds), sample_rate=16_000)
    return clip


def _report_bad(name: str, bad: list[BadClip], *, total: int, max_bad_fraction: float) -> None:
    for clip in bad[:MOST_TOLD]:
        logger.warning("evaluation task %r leaves out %s: %s", name, clip.path, clip.reason)
    if len(bad) > MOST_TOLD:
        logger.warning("evaluation task %r leaves out %d more", name, len(bad) - MOST_TOLD)
    if len(bad) > max_bad_fraction * total or len(bad) == total:
        listed = "\n".join(f"  {clip.path}: {clip.reason}" for clip in bad[:SHOWN])
        raise TrainingError(
            f"evaluation task {name!r}: at most {max_bad_fraction:.0%} of its clips may be unusable, but "
            f"{len(bad)} of {total} are. Mend or remove the files, or allow more. The first ones:\n"
            f"{listed}"
        )


def _leaks(name: str, clips: list[Clip], *, strict: bool) -> list[str]:
    """Warnings about groups on two sides; RecipeError where a test part is one of the sides.

    Validation clips only choose the epoch, so what they share with another split of the three is a warning.
    """
    found = shared_groups(clips)
    named = {clip.split for clip in clips} <= set(SPLITS)
    wrong = {what: splits for what, splits in found.items() if not named or {"train", "test"} <= set(splits)}
    warnings = []
    if wrong:
        shown = _examples(f"{what} (in {', '.join(splits)})" for what, splits in wrong.items())
        text = f"a group or clip must be in one split only, but {len(wrong)} are in both train and test parts: {shown}"
        if strict:
            raise RecipeError(f"evaluation task {name!r}: {text}. Move each to one side")
        warnings.append(text)
    if mild := {what: splits for what, splits in found.items() if what not in wrong}:
        shown = _examples(f"{what} (in {', '.join(splits)})" for what, splits in mild.items())
        warnings.append(f"{len(mild)} groups or clips are shared with the validation split: {shown}")
    return warnings


def _divided(name: str, clips: list[Clip], targets: NDArray[np.float32]) -> tuple[Fold, ...]:
    try:
        return divide(clips, targets)
    except RecipeError as error:
        raise RecipeError(f"evaluation task {name!r}: {error}") from error


def _untrained_classes(
    folds: Sequence[Fold], targets: NDArray[np.float32], label_names: Sequence[str]
) -> list[str]:
    lacking: Counter[str] = Counter()
    for fold in folds:
        absent = (targets[fold.train].sum(0) == 0) & (targets[fold.test].sum(0) > 0)
        lacking.update({name: 1 for name, lacks in zip(label_names, absent, strict=True) if lacks})
    if not lacking:
        return []
    return [f"{len(lacking)} classes occur in a test part but not in its training part: {_examples(lacking)}"]


def _unlike_published(
    name: str, dataset: Dataset, clips: Sequence[Clip], label_names: Sequence[str]
) -> list[str]:
    """What makes a published task another one on this machine; nothing is known of other tasks."""
    info = dataset.task
    if info is None:
        return []
    warnings = []
    if len(label_names) != info.num_classes:
        warnings.append(
            f"{info.title} has {info.num_classes} classes ({info.source}), here are {len(label_names)}"
        )
    if _metric(clips) != info.metric:
        warnings.append(f"{info.title} is scored by {info.metric} ({info.source}), here by {_metric(clips)}")
    return warnings + missing_of(name, dataset)


@dataclass(frozen=True, slots=True, eq=False)
class ImageTask(ClipTask):
    """A labelled set of images, which have no length: `unit_seconds` is 0."""

    @classmethod
    def _usable(
        cls, clips: list[Clip], dataset: Dataset, unit_seconds: float | None
    ) -> tuple[list[Clip], list[BadClip], float]:
        def check(clip: Clip) -> Clip:
            read_image(clip.path, channels=3)
            return clip

        return *partition(clips, check), 0.0

    def batches(self, encoder: ClipEncoder, batch_size: int) -> Iterator[Tensor]:
        """Batches (B, C, H, W) of the middle of each image, uint8, in order.

        Raises RecipeError for an encoder that is not of images, ImageError where a file became unreadable.
        """
        if not isinstance(encoder, ImageEncoder):
            raise RecipeError(f"evaluation task {self.name!r}: images need an encoder of images")
        return read_ahead(in_batches(self.clips, batch_size), lambda clip: encoder.load(clip.path))
