"""Checks of noise sources and data sets."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2dx.contract.components import Clip, Dataset, NoiseSource
from m2dx.contract.errors import AudioError, ImageError
from m2dx.data.crops import AudioCrops
from m2dx.data.images import read_image
from m2dx.data.packs import is_there
from m2dx.testing.rules import Subject

NUM_SAMPLES = (400, 15_360, 33_333)
CLIPS_READ = 3


def check_noise_source(cls: type[NoiseSource], sample_rate: int = 16_000, /, **options: Any) -> None:
    """Checks a noise source: length and type of its draws, and that all randomness comes from the generator.

    Raises `ComponentCheckError`.
    """
    subject = Subject.of("noise_source", cls, options)
    with subject.attempt("__init__"):
        source: NoiseSource = subject.build(sample_rate=sample_rate)
    torch_state, numpy_state = torch.get_rng_state(), _numpy_state()
    for num_samples in NUM_SAMPLES:
        _check_draw(subject, source, num_samples)
    num_samples = NUM_SAMPLES[1]
    first = _draw(subject, source, num_samples, seed=0)
    fresh: NoiseSource = subject.build(sample_rate=sample_rate)
    for other, which in ((source, "the same source"), (fresh, "a fresh one")):
        subject.must(
            torch.equal(first, _draw(subject, other, num_samples, seed=0)),
            f"{which} must give the same noise for the same generator; draw everything with it, and keep no state",
        )
    subject.must(
        not torch.equal(first, _draw(subject, source, num_samples, seed=1)),
        "another generator must give other noise",
    )
    untouched = torch.equal(torch_state, torch.get_rng_state()) and numpy_state == _numpy_state()
    subject.must(untouched, "draw must leave the global generators of torch and numpy alone")
    with subject.attempt("pickling it, as loading processes do outside of Linux,"):
        pickle.loads(pickle.dumps(source))
    subject.must(isinstance(source.drain_bad(), list), "drain_bad must give a list of (path, reason)")


def _numpy_state() -> str:
    return repr(np.random.get_state())  # noqa: NPY002  the global generator is what is looked at


def _draw(subject: Subject, source: NoiseSource, num_samples: int, *, seed: int) -> Tensor:
    with subject.attempt(f"draw({num_samples}, generator)"):
        return source.draw(num_samples, torch.Generator().manual_seed(seed))


def _check_draw(subject: Subject, source: NoiseSource, num_samples: int) -> None:
    wav = _draw(subject, source, num_samples, seed=0)
    subject.must(
        isinstance(wav, Tensor) and wav.dtype == torch.float32 and wav.device.type == "cpu",
        f"draw must give a float32 tensor on the CPU, but gave {getattr(wav, 'dtype', type(wav).__name__)}",
    )
    subject.must(
        tuple(wav.shape) == (num_samples,),
        f"draw({num_samples}, generator) must give ({num_samples},), but gave {tuple(wav.shape)}",
    )
    subject.must(bool(wav.isfinite().all()), "its samples must be finite")
    subject.must(not wav.requires_grad, "its samples must have no gradient")


def check_dataset(cls: type[Dataset], /, **options: Any) -> None:
    """Checks a data set: order, labels, splits, what is missing; a few of its clips are read.

    Raises `ComponentCheckError`.
    """
    subject = Subject.of("dataset", cls, options)
    with subject.attempt("__init__"):
        dataset: Dataset = subject.build()
    with subject.attempt("clips()"):
        clips, again = dataset.clips(), dataset.clips()
    subject.must(bool(clips), "clips() must give some clips; test it on a few files")
    for clip in clips:
        _check_clip(subject, clip)
    subject.must(
        clips == again == subject.build().clips(), "clips() must give the same clips in the same order"
    )
    _check_splits(subject, dataset, clips)
    _check_labels(subject, dataset, clips)
    _check_files(subject, dataset, clips)


def _check_clip(subject: Subject, clip: Clip) -> None:
    subject.must(isinstance(clip, Clip), f"clips() must give m2dx.Clip objects, but gave {clip!r}")
    subject.must(isinstance(clip.path, Path), f"a clip's path must be a pathlib.Path, but is {clip.path!r}")
    length = 0.0 if clip.duration is None else clip.duration
    subject.must(
        math.isfinite(clip.start) and clip.start >= 0 and math.isfinite(length),
        f"start and duration must be seconds, 0 or more, but {clip.path} has {clip.start} and {clip.duration}",
    )
    subject.must(clip.duration is None or length > 0, f"the duration of {clip.path} must be more than 0")
    subject.must(
        isinstance(clip.labels, tuple),
        f"labels must be a tuple of texts, but {clip.path} has {clip.labels!r}",
    )


def _check_splits(subject: Subject, dataset: Dataset, clips: list[Clip]) -> None:
    for split in sorted({clip.split for clip in clips if clip.split is not None}):
        subject.must(
            dataset.clips(split) == [clip for clip in clips if clip.split == split],
            f"clips({split!r}) must give the clips of that split, in the order of clips()",
        )
    with subject.attempt("clips() of a split that is not there"):
        others = dataset.clips("no such split")
    subject.must(not others, f"a split that is not there must be empty, but has {len(others)} clips")


def _check_labels(subject: Subject, dataset: Dataset, clips: list[Clip]) -> None:
    names = dataset.label_names()
    subject.must(
        isinstance(names, tuple) and len(set(names)) == len(names),
        f"label_names() must be a tuple without repeats, but is {names!r}",
    )
    unknown = sorted({label for clip in clips for label in clip.labels} - set(names))
    subject.must(not unknown, f"labels must be among label_names(), but these are not: {', '.join(unknown)}")


def _check_files(subject: Subject, dataset: Dataset, clips: list[Clip]) -> None:
    missing = dataset.missing()
    listed = isinstance(missing, list) and all(isinstance(line, str) for line in missing)
    subject.must(listed, f"missing() must be a list of lines, but is {missing!r}")
    there = [clip for clip in clips if is_there(clip.path)]
    subject.must(
        len(there) == len(clips) or bool(missing),
        f"missing() must say what is not on this machine, but says nothing of {len(clips) - len(there)} clips",
    )
    for clip in there[:CLIPS_READ]:
        try:
            if dataset.media == "image":
                read_image(clip.path, channels=3)
                continue
            AudioCrops(16_000, 16_000).read_at(clip, 0.5)
        except (AudioError, ImageError) as error:
            subject.fail(
                f"its clips must be readable with soundfile (images with Pillow), but {clip.path} is not: {error}"
            )
