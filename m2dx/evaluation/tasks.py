"""Labelled tasks that encoders are scored on: checked clips, targets, divisions, and the features of each encoder."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2dx.contract.components import BadClip, Clip, ClipEncoder, Dataset, EvaluationTask, Features, Fold
from m2dx.contract.errors import AudioError, ImageError, RecipeError, TrainingError
from m2dx.contract.progress import Progress
from m2dx.contract.wording import some_of
from m2dx.data.clips import call_dataset, list_clips
from m2dx.data.containers import is_there
from m2dx.data.crops import fit_length
from m2dx.data.images import read_image
from m2dx.data.pcm import check_scale
from m2dx.data.reading import probe, read_wav
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.images import ImageEncoder
from m2dx.evaluation.features import (
    READING_THREADS,
    FeatureCache,
    FrameStatistics,
    blocks_spread,
    extract,
    read_ahead,
)
from m2dx.evaluation.splits import SPLITS, divide, shared_groups
from m2dx.recipe.schema import EvaluationTaskSection

logger = logging.getLogger(__name__)

BATCH_SECONDS = 600.0  # audio that is encoded at a time, at most, unless one clip has more
MOST_BYTES = 2**30  # features of an encoder whose layers are all kept
FEW_SEVERAL = 0.1  # share of clips with several labels, up to which a warning names them
MOST_WARNINGS = 20  # unusable clips that a line is written for, at most
MOST_EXAMPLES = 5  # examples that an error or a warning lists, at most


@dataclass(frozen=True, slots=True, eq=False)
class ClipTask(EvaluationTask):
    """A labelled set of clips or images, divided for training and testing a classifier on frozen features."""

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
        target: Literal["class", "value"] = "class",
        cache: FeatureCache | None = None,
        images: bool | None = None,
        title: str | None = None,
        progress: Progress | None = None,
    ) -> ClipTask:
        """The task of a data set, after reading each clip once to find unusable files.

        `unit_seconds` defaults to that of a published task (`dataset.task`), else to `mean_seconds` of the clips
        (M2D-X, IV-B). `shared_groups` says what follows from a group in both train and test, or in two folds; "warn"
        is for official splits that have such groups. `target`: labels are names of classes, or numbers, one a clip.
        `images` defaults to what the data set says that it has. Messages call the task `title`, by default "evaluation
        task 'NAME'", whose number of bad clips a recipe can set. Where a published task is not as published, the
        warnings say it.

        Raises RecipeError, with every problem found, where clips lack a label or a split, splits are unusable, or
        groups leak; TrainingError where more than `max_bad_fraction` of the clips cannot be read; PluginError where the
        data set fails.
        """
        can_allow, title = title is None, title or _title(name)
        listed, label_names = _checked_lists(name, title, dataset, target)
        images = dataset.media == "image" if images is None else images
        if images:
            (clips, bad), seconds = partition(listed, _image, progress), None
        else:
            clips, bad = partition(listed, _with_duration, progress)
            published = None if dataset.task is None else dataset.task.unit_seconds
            seconds = unit = unit_seconds or published or mean_seconds(name, clips)
            clips, unreadable = partition(clips, lambda clip: _readable(clip, unit), progress)
            bad += unreadable
        _report_bad(title, bad, total=len(listed), most=max_bad_fraction, can_allow=can_allow)
        folds, warnings = _divided(title, clips, label_names, strict=shared_groups == "error")
        warnings += _untrained_classes(folds, _targets(clips, label_names), label_names)
        warnings += _few_several(clips)
        warnings += _unlike_published(name, dataset, clips, label_names)
        for warning in warnings:
            logger.warning("%s: %s", title, warning)
        usable, warned = tuple(clips), tuple(warnings)
        return cls(name, usable, label_names, folds, seconds, short_clips, tuple(bad), warned, cache)

    def targets(self) -> NDArray[np.floating]:
        """Multi-hot targets (n, C) float32, in the order of `clips` and `label_names`, or values (n, 1) float64."""
        return _targets(self.clips, self.label_names)

    def features(self, encoder: ClipEncoder, *, batch_size: int = 32, layers: Sequence[int] = ()) -> Features:
        """Frozen clip features of an encoder; computed once per encoder object, whose weights must not change.

        With a cache, they are kept on disk too. `layers` asks for blocks beside the usual ones, which are the last
        block alone where the features of all would be over 1 GiB. What others have asked for is not among them.
        """
        wanted = self._layers(encoder, layers) if isinstance(encoder, AudioEncoder) else set[int]()
        found = self._features.get(encoder)
        if found is None or not found.layers.keys() >= set(wanted):
            if self.unit_seconds:
                batch_size = min(batch_size, max(int(BATCH_SECONDS / self.unit_seconds), 1))
            compute = extract if self.cache is None else self.cache.features
            if isinstance(encoder, AudioEncoder):
                statistics = FrameStatistics(encoder, wanted)
                found = statistics.features(compute(statistics, self, batch_size=batch_size))
            else:
                found = compute(encoder, self, batch_size=batch_size)
            self._features[encoder] = found
        if found.layers.keys() == wanted:
            return found
        return replace(found, layers={number: found.layers[number] for number in sorted(wanted)})

    def _layers(self, encoder: AudioEncoder, named: Sequence[int]) -> set[int]:
        spread = blocks_spread(encoder)
        size = len(self.clips) * len(spread) * 3 * encoder.embed_dim * 4  # bytes
        return {*named, *(spread if size <= MOST_BYTES else spread[-1:])}

    def batches(self, encoder: ClipEncoder, batch_size: int) -> Iterator[Tensor]:
        """The clips in order, as the encoder wants them: audio (B, N), or the middle of each image, (B, C, H, W) uint8.

        Audio is brought to `unit_seconds`: of longer clips the start is taken, shorter ones are filled at the end.
        (The paper crops longer ones at random, M2D-X, IV-B; a fixed crop keeps features frozen and runs repeatable.)
        Raises RecipeError for images where the encoder is not of images, AudioError or ImageError where a file became
        unreadable.
        """

        def read(clip: Clip) -> Tensor:
            if isinstance(encoder, ImageEncoder):
                return encoder.load(clip.path)
            assert self.unit_seconds is not None
            try:
                wav = _wav(clip, self.unit_seconds, encoder.sample_rate)
            except AudioError as error:
                raise AudioError(f"{clip.path}: {error}") from error
            num_samples = max(1, round(self.unit_seconds * encoder.sample_rate))
            return torch.from_numpy(fit_length(wav, num_samples, short_clips=self.short_clips))

        if self.unit_seconds is None and not isinstance(encoder, ImageEncoder):
            raise RecipeError(f"evaluation task {self.name!r}: images need an encoder of images")
        starts = range(0, len(self.clips), batch_size)
        return read_ahead((self.clips[first : first + batch_size] for first in starts), read)


def listed_task(name: str, dataset: Dataset, section: EvaluationTaskSection) -> ClipTask:
    """The task by the lists of a data set, without folds; raises what `ClipTask.from_dataset` would raise for them.

    Reads no audio file, so that `unit_seconds` is there only where a setting, a published task or all clips say it.
    """
    clips, label_names = _checked_lists(name, _title(name), dataset, section.target)
    _divided(_title(name), clips, label_names, strict=section.shared_groups == "error")
    unit = section.unit_seconds or (None if dataset.task is None else dataset.task.unit_seconds)
    if unit is None and all(clip.duration is not None for clip in clips):
        unit = mean_seconds(name, clips)
    return ClipTask(name, tuple(clips), label_names, (), unit, section.short_clips)


def _title(name: str) -> str:
    return f"evaluation task {name!r}"


def _targets(clips: Sequence[Clip], label_names: Sequence[str]) -> NDArray[np.floating]:
    if label_names:
        return _multi_hot(clips, label_names)
    return np.array([[float(clip.labels[0])] for clip in clips], dtype=np.float64)


def _multi_hot(clips: Sequence[Clip], label_names: Sequence[str]) -> NDArray[np.float32]:
    column = {label: number for number, label in enumerate(label_names)}
    targets = np.zeros((len(clips), len(label_names)), dtype=np.float32)
    for row, clip in enumerate(clips):
        targets[row, [column[label] for label in clip.labels]] = 1.0
    return targets


def _checked_lists(
    name: str, title: str, dataset: Dataset, target: str
) -> tuple[list[Clip], tuple[str, ...]]:
    """Clips and label names, none of values; RecipeError with every problem found."""
    clips, label_names = list_clips(name, dataset), tuple(call_dataset(name, dataset, "label_names"))
    if not clips:
        lacking = " ".join(call_dataset(name, dataset, "missing"))
        raise RecipeError(f"{title} has no clips. {lacking}".rstrip())
    known = set(label_names)
    wrong = {
        "have no label": [clip for clip in clips if not clip.labels],
        "have no split or fold (`split: {test: 0.2}` or `folds: 5` of the data set makes them)": [
            clip for clip in clips if clip.split is None
        ],
        "have a label that is not in the data set's label names": [c for c in clips if set(c.labels) - known],
    }
    if target == "value":
        not_one = "have a label that is not one number, as `target: value` says"
        wrong[not_one] = [clip for clip in clips if clip.labels and not _is_value(clip)]
    problems = [
        f"{len(found)} clips {problem}: {some_of(str(clip.path) for clip in found)}"
        for problem, found in wrong.items()
        if found
    ]
    if len(known) < 2:
        problems.append(f"there must be two classes or more, but there are {len(known)}")
    if not any(is_there(path) for path in dict.fromkeys(clip.path for clip in clips)):
        problems.append(f"none of its files is there: {some_of(str(clip.path) for clip in clips)}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise RecipeError(f"{title} cannot be used:\n{lines}")
    return clips, label_names if target == "class" else ()


def _is_value(clip: Clip) -> bool:
    try:
        return len(clip.labels) == 1 and math.isfinite(float(clip.labels[0]))
    except ValueError:
        return False


def partition(
    clips: list[Clip], check: Callable[[Clip], Clip], progress: Progress | None = None
) -> tuple[list[Clip], list[BadClip]]:
    """Clips that `check` accepts, as it returns them, and those that it refuses with an AudioError or ImageError."""

    def attempt(clip: Clip) -> Clip | BadClip:
        try:
            return check(clip)
        except (AudioError, ImageError) as error:
            return BadClip(clip.path, str(error))

    results = []
    with ThreadPoolExecutor(READING_THREADS) as pool:
        for result in pool.map(attempt, clips):
            results.append(result)
            if progress is not None:
                progress(len(results), len(clips), "clips")
    good = [result for result in results if isinstance(result, Clip)]
    return good, [result for result in results if isinstance(result, BadClip)]


def _with_duration(clip: Clip) -> Clip:
    if clip.duration is not None:
        return clip
    duration = probe(clip.path).seconds - clip.start
    if duration <= 0:
        end = clip.start + duration
        raise AudioError(f"the clip starts at {clip.start:g} s, but the file ends at {end:g} s")
    return replace(clip, duration=duration)


def mean_seconds(name: str, clips: Sequence[Clip]) -> float:
    """Mean length of the clips, one counting as ten times the median, and an hour, at most: a warning names such."""
    seconds = np.array([clip.duration for clip in clips], dtype=np.float64)
    most = min(10 * float(np.median(seconds)), 3600.0) if clips else 0.0
    if longer := int((seconds > most).sum()):
        logger.warning(
            "%r: %d of %d clips are over %.4g s long (ten times the median, or an hour), and count as that in the mean "
            "length that clips are brought to; `unit_seconds` sets another", name, longer, len(clips), most
        )  # fmt: skip
    return float(np.minimum(seconds, most).mean()) if clips else 0.0


def _readable(clip: Clip, unit_seconds: float) -> Clip:
    _wav(clip, unit_seconds, 16_000)
    return clip


def _wav(clip: Clip, unit_seconds: float, sample_rate: int) -> NDArray[np.float32]:
    duration = unit_seconds if clip.duration is None else min(clip.duration, unit_seconds)
    return check_scale(read_wav(clip.path, start=clip.start, duration=duration, sample_rate=sample_rate))


def _image(clip: Clip) -> Clip:
    read_image(clip.path, channels=3)
    return clip


def _report_bad(title: str, bad: list[BadClip], *, total: int, most: float, can_allow: bool) -> None:
    if len(bad) > most * total or len(bad) == total:
        listed = "\n".join(f"  {clip.path}: {clip.reason}" for clip in bad[:MOST_EXAMPLES])
        allow = ", or allow more (`max_bad_fraction`)" if can_allow else ""
        raise TrainingError(
            f"{title}: at most {most:.0%} of its clips may be unusable, but {len(bad)} of {total} are. Mend or remove "
            f"the files{allow}. The first ones:\n{listed}"
        )
    for clip in bad[:MOST_WARNINGS]:
        logger.warning("%s leaves out %s: %s", title, clip.path, clip.reason)
    if len(bad) > MOST_WARNINGS:
        logger.warning("%s leaves out %d more", title, len(bad) - MOST_WARNINGS)


def _leaks(title: str, clips: list[Clip], *, strict: bool) -> list[str]:
    """Warnings about groups on two sides; RecipeError where a test part is one of the sides.

    What the validation part shares with another split of the three is a warning: nothing is fitted to what it shares
    with the test (`Fold.only_chooses`).
    """
    named = {clip.split for clip in clips} <= set(SPLITS)
    wrong, mild, warnings = list[str](), list[str](), list[str]()
    for shared, splits in shared_groups(clips).items():
        is_wrong = not named or {"train", "test"} <= set(splits)
        (wrong if is_wrong else mild).append(f"{shared} (in {', '.join(splits)})")
    if wrong:
        are = f"{len(wrong)} are in both train and test parts: {some_of(wrong)}"
        text = f"a group or clip must be in one split only, but {are}"
        if strict:
            raise RecipeError(f"{title}: {text}. Move each to one side")
        warnings.append(text)
    if mild:
        some = some_of(mild)
        warnings.append(
            f"{len(mild)} groups or clips are shared with the validation split, whose clips only choose where the test "
            f"part has theirs: {some}"
        )
    return warnings


def _divided(
    title: str, clips: list[Clip], label_names: Sequence[str], *, strict: bool
) -> tuple[tuple[Fold, ...], list[str]]:
    """The divisions, and warnings about what they share."""
    warnings = _leaks(title, clips, strict=strict)
    try:
        counts = _multi_hot(clips, label_names) if label_names else np.ones((len(clips), 1), np.float32)
        return divide(clips, counts), warnings
    except RecipeError as error:
        raise RecipeError(f"{title}: {error}") from error


def _untrained_classes(
    folds: Sequence[Fold], targets: NDArray[np.floating], label_names: Sequence[str]
) -> list[str]:
    lacking: dict[str, None] = {}
    for fold in folds if label_names else ():
        absent = (targets[fold.train].sum(0) == 0) & (targets[fold.test].sum(0) > 0)
        lacking |= {label_names[number]: None for number in np.flatnonzero(absent).tolist()}
    text = f"{len(lacking)} classes occur in a test part but not in its training part: {some_of(lacking)}"
    return [text] if lacking else []


def _few_several(clips: Sequence[Clip]) -> list[str]:
    """A warning where a few clips turn accuracy into mAP: a stray line may have done it."""
    several = [str(clip.path) for clip in clips if len(clip.labels) > 1]
    if not 0 < len(several) <= FEW_SEVERAL * len(clips):
        return []
    return [
        f"{len(several)} of {len(clips)} clips have several labels, so that the score is mAP: {some_of(several)}"
    ]


def _unlike_published(
    name: str, dataset: Dataset, clips: Sequence[Clip], label_names: Sequence[str]
) -> list[str]:
    """What the data set lacks on this machine, and what else makes a published task another one."""
    info, missing = dataset.task, call_dataset(name, dataset, "missing")
    if info is None:
        return missing
    warnings = []
    if len(label_names) != info.num_classes:
        count = len(label_names)
        warnings.append(f"{info.title} has {info.num_classes} classes ({info.source}), here are {count}")
    metric = "mAP" if any(len(clip.labels) > 1 for clip in clips) else "accuracy"
    if metric != info.metric:
        warnings.append(f"{info.title} is scored by {info.metric} ({info.source}), here by {metric}")
    return warnings + missing
