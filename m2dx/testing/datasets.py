"""The check of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from m2dx.contract.components import Clip, Dataset
from m2dx.data.clips import call_dataset, clip_problem
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
    for problem in filter(None, map(clip_problem, clips)):
        subject.fail(problem)
    same = clips == again == subject.build().clips()
    subject.must(same, "clips() must give the same clips in the same order")
    for split in sorted({clip.split for clip in clips if clip.split is not None}):
        own = [clip for clip in clips if clip.split == split]
        text = f"clips({split!r}) must give the clips of that split, in the order of clips()"
        subject.must(dataset.clips(split) == own, text)
    with subject.attempt("clips() of a split that is not there"):
        others = dataset.clips("no such split")
    subject.must(not others, f"a split that is not there must be empty, but has {len(others)} clips")
    with subject.attempt("label_names()"):
        names = dataset.label_names()
    once = isinstance(names, tuple) and len(set(names)) == len(names)
    subject.must(once, f"label_names() must be a tuple without repeats, but is {names!r}")
    unknown = sorted({label for clip in clips for label in clip.labels} - set(names))
    subject.must(not unknown, f"labels must be among label_names(), but these are not: {', '.join(unknown)}")
    _check_files(subject, dataset, clips)


def _check_files(subject: Subject, dataset: Dataset, clips: Sequence[Clip]) -> None:
    there = [clip for clip in clips if is_there(clip.path)]
    with subject.attempt("missing() and notes()"):
        missing, _ = (call_dataset(subject.name, dataset, name) for name in ("missing", "notes"))
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
