"""The check of data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m2dx.contract.components import Clip, Dataset
from m2dx.data.containers import is_there
from m2dx.data.crops import AudioCrops
from m2dx.data.images import read_image
from m2dx.testing.rules import Subject

CLIPS_READ = 3


def check_dataset(cls: type[Dataset], /, **options: Any) -> None:
    """Checks a data set: order, labels, splits, what is missing; a few of its clips are read."""
    subject = Subject.of("dataset", cls, options)
    dataset: Dataset = subject.build()
    with subject.attempt("clips()"):
        clips, again = dataset.clips(), dataset.clips()
    subject.must(bool(clips), "clips() must give some clips; test it on a few files")
    for clip in clips:
        _check_clip(subject, clip)
    same = clips == again == subject.build().clips()
    subject.must(same, "clips() must give the same clips in the same order")
    for split in sorted({clip.split for clip in clips if clip.split is not None}):
        own = [clip for clip in clips if clip.split == split]
        text = f"clips({split!r}) must give the clips of that split, in the order of clips()"
        subject.must(dataset.clips(split) == own, text)
    with subject.attempt("clips() of a split that is not there"):
        others = dataset.clips("no such split")
    subject.must(not others, f"a split that is not there must be empty, but has {len(others)} clips")
    names = dataset.label_names()
    once = isinstance(names, tuple) and len(set(names)) == len(names)
    subject.must(once, f"label_names() must be a tuple without repeats, but is {names!r}")
    unknown = sorted({label for clip in clips for label in clip.labels} - set(names))
    subject.must(not unknown, f"labels must be among label_names(), but these are not: {', '.join(unknown)}")
    _check_files(subject, dataset, clips)


def _check_clip(subject: Subject, clip: Clip) -> None:
    subject.must(isinstance(clip, Clip), f"clips() must give m2dx.Clip objects, but gave {clip!r}")
    subject.must(isinstance(clip.path, Path), f"a clip's path must be a pathlib.Path, but is {clip.path!r}")
    placed = 0 <= clip.start < math.inf and (clip.duration is None or 0 < clip.duration < math.inf)
    has = f"{clip.path} has {clip.start} and {clip.duration}"
    subject.must(placed, f"start must be seconds, 0 or more, and duration must be more than 0, but {has}")
    labels = f"labels must be a tuple of texts, but {clip.path} has {clip.labels!r}"
    subject.must(isinstance(clip.labels, tuple), labels)


def _check_files(subject: Subject, dataset: Dataset, clips: Sequence[Clip]) -> None:
    missing, there = dataset.missing(), [clip for clip in clips if is_there(clip.path)]
    listed = isinstance(missing, list) and all(isinstance(line, str) for line in missing)
    subject.must(listed, f"missing() must be a list of lines, but is {missing!r}")
    subject.must(
        len(there) == len(clips) or bool(missing),
        f"missing() must say what is not on this machine, but says nothing of {len(clips) - len(there)} clips",
    )
    for clip in there[:CLIPS_READ]:
        with subject.attempt(f"reading {clip.path} (with soundfile; images with Pillow)"):
            if dataset.media == "image":
                read_image(clip.path, channels=3)
            else:
                AudioCrops(16_000, 16_000).read_at(clip, 0.5)
