"""What makes it unlikely that a run learns, or does what was meant: each with the number that would do.

`m2dx check` prints them all, and so does a training before its first step. None of them stops it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from m2dx.contract.components import MaskedModel
from m2dx.contract.errors import AudioError
from m2dx.contract.wording import counted
from m2dx.data.batches import Stream, seeded_generator
from m2dx.data.crops import AudioCrops
from m2dx.data.reading import seconds_of_some
from m2dx.model.shapes import build_logmel
from m2dx.training.optim import Rates
from m2dx.training.prepare import PreparedRun

MOST_PROBED = 200  # clips whose lengths are read from their headers
MOST_HEARD = 16  # clips whose samples are looked at
MOST_WEIGHTS_A_CROP = 50_000
"""Trained weights by crops of distinct sound: the quickstart has 2,100, M2D on AudioSet 60."""
MOST_RANDOM = 0.4
"""Share of its random start in the target at the end; M2D on AudioSet has 0.0002."""
MOST_LOUD = 16.0  # peak of samples that are taken to be meant so; those of int16 go up to 32768


class CheckedRun:
    """A run, its resolved recipe and steps, and what several rules ask of it."""

    def __init__(self, run: PreparedRun) -> None:
        self.prepared, self.recipe, self.steps = run, run.recipe, run.total_steps
        self.steps_per_epoch = run.batches().steps_per_epoch

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """Lengths of clips, s: all that the lists tell, or those of some files where they tell none."""
        clips = self.prepared.clips
        known: NDArray[np.float64] = clips.durations[~np.isnan(clips.durations)]
        return known if len(known) else np.array(seconds_of_some(clips, MOST_PROBED))


def print_doubts(run: PreparedRun, console: Console) -> None:
    """Prints each doubt once, with its number among all."""
    checked = CheckedRun(run)
    found = [doubt for rule in RULES for doubt in rule(checked)]
    for number, doubt in enumerate(found, 1):
        console.print(f"warning {number} of {len(found)}: {doubt}", style="yellow")


def _slow_target(run: CheckedRun) -> Iterator[str]:
    method, decay = type(run.prepared.model.masked_model), run.recipe.model.ema_decay
    if method.after_step is MaskedModel.after_step or run.recipe.init_from is not None:
        return
    rates = Rates.of(
        run.recipe, run.prepared.host, total_steps=run.steps, steps_per_epoch=run.steps_per_epoch
    )
    some = np.array([rates.ema_decay(int(step)) for step in np.linspace(0, run.steps - 1, 1000)])
    with np.errstate(divide="ignore"):
        exponent = float(np.log(some).mean()) * run.steps
    if math.exp(exponent) <= MOST_RANDOM:
        return
    faster = math.log(100) / -exponent
    start, end = (max(1 - (1 - value) * faster, 0) for value in (decay.start, decay.end))
    do = f"model.ema_decay={{start: {start:.4g}, end: {end:.4g}}} would leave 1 %"
    yield (
        f"model.ema_decay: after {counted(run.steps, 'step')} the target network is still "
        f"{math.exp(exponent):.0%} its random start, and so is what the model learns to predict; "
        f"{do if start > 0 else 'take more steps (train.epochs)'}"
    )


def _values(run: CheckedRun) -> Iterator[str]:
    """Doubts about single values of the recipe."""
    train, data, every = run.recipe.train, run.recipe.data, run.recipe.evaluation.every
    least, enough = (1e-4, 1e-3) if run.recipe.init_from is None else (1e-6, 1e-4)
    if (peak := train.base_lr * train.batch_size / 256) < least:
        yield (
            f"train.base_lr: its peak, base_lr x batch_size / 256, is {peak:.2g}, with which little is learned; "
            f"train.base_lr={enough * 256 / train.batch_size:.2g} would give {enough:g}"
        )
    if every is not None and every >= run.steps:
        fitting = max(run.steps // 4, 1)
        yield (
            f"evaluation.every: nothing is scored on the way, since the training ends at step {run.steps} and the "
            f"first of these evaluations is at step {every}; train.checkpoint_every={fitting} "
            f"evaluation.every={fitting} would do"
        )
    if train.epochs * run.steps_per_epoch < 1:
        yield (
            f"train.epochs: {train.epochs:g} epochs are less than a step, and one step is trained; train.epochs=1 is a "
            f"pass over the data, {counted(run.steps_per_epoch, 'step')}"
        )
    if run.recipe.image is not None or data.mean is None or data.std is None:
        return
    if not (-17 <= data.mean <= 8 and 0.3 <= data.std <= 20):
        yield (
            f"data.mean: log-mels are standardised with mean {data.mean:.4g} and std {data.std:.4g}, but those of "
            "samples in [-1, 1] have a mean of -16 to 5 and a std of 1 to 8; data.mean=null data.std=null measures them"
        )


def _padding(run: CheckedRun) -> Iterator[str]:
    if run.recipe.image is not None or run.recipe.data.short_clips != "pad" or not len(run.seconds):
        return
    audio = run.recipe.audio
    share = float(np.maximum(1 - run.seconds / audio.crop_seconds, 0).mean())
    if share <= 0.25:
        return
    patch = run.recipe.model.patch_size[1] * audio.hop_length / audio.sample_rate
    fitting = max(math.floor(float(np.quantile(run.seconds, 0.25)) / patch + 1e-6), 2) * patch
    yield (
        f"audio.crop_seconds: {share:.0%} of a crop of {audio.crop_seconds:g} s is padding on the average, since half "
        f"of the clips are shorter than {np.median(run.seconds):.2g} s; audio.crop_seconds={fitting:.4g} or "
        "data.short_clips=repeat would do"
    )


def _large_model(run: CheckedRun) -> Iterator[str]:
    weights = sum(p.numel() for p in run.prepared.model.parameters() if p.requires_grad)
    clips = len(run.prepared.clips)
    crops = float(clips)
    if run.recipe.image is None and len(run.seconds):
        crops *= max(float(run.seconds.mean()) / run.recipe.audio.crop_seconds, 1)
    if run.recipe.init_from is None and weights > MOST_WEIGHTS_A_CROP * crops:
        model, predictor = run.recipe.model, run.recipe.model.predictor
        is_small = model.size == "tiny" and model.depth is not None and model.depth <= 4
        do = "or a start (init_from)"
        if not is_small or predictor.embed_dim > 192 or predictor.depth > 1:
            do = (
                "a start (init_from), or model.size=tiny model.depth=4 "
                "model.predictor={embed_dim: 192, depth: 1, num_heads: 3} (2.3 M)"
            )
        yield (
            f"model.size: {weights / 1e6:.3g} M weights are trained from random ones on {counted(clips, 'clip')}; "
            f"{weights / MOST_WEIGHTS_A_CROP:,.0f} or more would do, {do}"
        )


def _empty_filters(run: CheckedRun) -> Iterator[str]:
    audio = run.recipe.audio
    if run.recipe.image is not None or not (empty := build_logmel(audio).empty_filters):
        return
    longer = (audio.n_fft * 2**k for k in range(1, 6))
    full = (n for n in longer if not build_logmel(audio.model_copy(update={"n_fft": n})).empty_filters)
    yield (
        f"audio.n_mels: {empty} of {audio.n_mels} mel filters are empty, since they are narrower than the "
        f"{audio.sample_rate / audio.n_fft:.3g} Hz between the frequencies of the FFT; fewer, or "
        f"audio.n_fft={next(full, 'a larger one')} would do"
    )


def _loud_samples(run: CheckedRun) -> Iterator[str]:
    clips, reader, peaks = run.prepared.clips, run.prepared.crops.reader, dict[str, float]()
    if not isinstance(reader, AudioCrops):
        return
    generator = seeded_generator(Stream.STATISTICS_CROP, seed=run.recipe.seed, position=0)
    count = min(len(clips), MOST_HEARD)
    for clip in (clips[number * len(clips) // count] for number in range(count)):
        try:
            samples, _ = reader.read(clip, generator)
        except AudioError:  # told where it is trained on
            continue
        if samples.is_floating_point():
            peaks[str(clip.path)] = float(samples.abs().max())
    loud = [(peak, path) for path, peak in peaks.items() if peak > MOST_LOUD]
    if loud:
        peak, path = max(loud)
        yield (
            f"data.sets: {len(loud)} of {len(peaks)} clips that were looked at have samples far beyond [-1, 1], such "
            f"as {peak:,.0f} in {path}: floats at the scale of int16? Divide them by 32768 and write the files anew"
        )


RULES = (_slow_target, _values, _padding, _large_model, _empty_filters, _loud_samples)
"""Each gives doubts that start with the field of the recipe."""
