"""What makes it unlikely that a run learns, or does what was meant: a rule each, with the number that would do.

`m2dx check` prints them all, and so does a training before its first step. None of them stops it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from m2dx.contract.components import MaskedModel
from m2dx.contract.errors import AudioError
from m2dx.contract.wording import counted
from m2dx.data.batches import Stream, seeded_generator
from m2dx.data.crops import AudioCrops
from m2dx.data.reading import audio_seconds
from m2dx.model.shapes import build_logmel
from m2dx.recipe.schema import AudioSection
from m2dx.training.optim import Schedule
from m2dx.training.prepare import PreparedRun

MOST_PROBED = 200  # clips whose lengths are read from their headers
MOST_HEARD = 16  # clips whose samples are looked at


def print_doubts(run: PreparedRun, console: Console) -> None:
    """Prints each doubt once, with its number among all."""
    found = [doubt for rule in RULES if (doubt := rule(run)) is not None]
    for number, doubt in enumerate(found, 1):
        console.print(f"warning {number} of {len(found)}: {doubt}", style="yellow", soft_wrap=True)


def _slow_target(run: PreparedRun) -> str | None:
    method, decay = type(run.model.masked_model), run.recipe.model.ema_decay
    if method.after_step is MaskedModel.after_step or run.recipe.init_from is not None:
        return None
    schedule = Schedule.of(run.recipe, total_steps=_steps(run), steps_per_epoch=run.batches().steps_per_epoch)
    some = np.array(
        [schedule.ema_decay(int(step)) for step in np.linspace(0, schedule.total_steps - 1, 1000)]
    )
    with np.errstate(divide="ignore"):
        exponent = float(np.log(some).mean()) * schedule.total_steps
    if math.exp(exponent) <= 0.5:
        return None
    faster = math.log(100) / -exponent
    start, end = (max(1 - (1 - value) * faster, 0) for value in (decay.start, decay.end))
    do = f"model.ema_decay={{start: {start:.4g}, end: {end:.4g}}} would leave 1 %"
    return (
        f"model.ema_decay: after {counted(schedule.total_steps, 'step')} the target network is still "
        f"{math.exp(exponent):.0%} its random start, and so is what the model learns to predict; "
        f"{do if start > 0 else 'take more steps (train.epochs)'}"
    )


def _low_rate(run: PreparedRun) -> str | None:
    train, started = run.recipe.train, run.recipe.init_from is not None
    peak, least = train.base_lr * train.batch_size / 256, 1e-6 if started else 1e-4
    if peak >= least:
        return None
    enough = 1e-4 if started else 1e-3
    return (
        f"train.base_lr: its peak, base_lr x batch_size / 256, is {peak:.2g}, with which little is learned; "
        f"train.base_lr={enough * 256 / train.batch_size:.2g} would give {enough:g}"
    )


def _low_clip(run: PreparedRun) -> str | None:
    clip = run.recipe.train.clip_norm
    if clip is None or clip >= 0.01:
        return None
    return f"train.clip_norm: {clip:g} takes nearly all of every gradient; train.clip_norm=3 is the published one"


def _padding(run: PreparedRun) -> str | None:
    if run.recipe.image is not None or run.recipe.data.short_clips != "pad":
        return None
    audio, seconds = run.recipe.audio, _seconds_of(run)
    share = float(np.maximum(1 - seconds / audio.crop_seconds, 0).mean()) if len(seconds) else 0.0
    if share <= 0.25:
        return None
    patch = run.recipe.model.patch_size[1] * audio.hop_length / audio.sample_rate
    fitting = max(math.floor(float(np.quantile(seconds, 0.25)) / patch + 1e-6), 2) * patch
    return (
        f"audio.crop_seconds: {share:.0%} of a crop of {audio.crop_seconds:g} s is padding on the average, since half "
        f"of the clips are shorter than {np.median(seconds):.2g} s; audio.crop_seconds={fitting:.4g} or "
        "data.short_clips=repeat would do"
    )


def _large_model(run: PreparedRun) -> str | None:
    weights = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    crops = float(len(run.clips))
    if run.recipe.image is None and len(seconds := _seconds_of(run)):
        crops *= max(float(seconds.mean()) / run.recipe.audio.crop_seconds, 1)
    if run.recipe.init_from is not None or weights <= MOST_WEIGHTS_A_CROP * crops:
        return None
    return (
        f"model.size: {weights / 1e6:.3g} M weights are trained from random ones on {counted(len(run.clips), 'clip')}; "
        f"{weights / MOST_WEIGHTS_A_CROP:,.0f} or more would do, a start (init_from), or model.size=tiny "
        "model.depth=4 model.predictor={embed_dim: 192, depth: 1, num_heads: 3} (2.3 M)"
    )


MOST_WEIGHTS_A_CROP = 50_000
"""Trained weights by crops of distinct sound: the quickstart has 2,100, M2D on AudioSet 60."""


def _empty_filters(run: PreparedRun) -> str | None:
    audio, mels = run.recipe.audio, run.recipe.model.patch_size[0]
    if run.recipe.image is not None or not (empty := _count_empty(audio)):
        return None
    fewer = (
        n for n in range(audio.n_mels - audio.n_mels % mels, 0, -mels) if not _count_empty(audio, n_mels=n)
    )
    longer = (n for n in (audio.n_fft * 2**k for k in range(1, 6)) if not _count_empty(audio, n_fft=n))
    ways = [f"audio.n_mels={n}" for n in [next(fewer, None)] if n]
    ways += [f"audio.n_fft={n}" for n in [next(longer, None)] if n]
    return (
        f"audio.n_mels: {empty} of {audio.n_mels} mel filters are empty, since they are narrower than the "
        f"{audio.sample_rate / audio.n_fft:.3g} Hz between the frequencies of the FFT; {' or '.join(ways)} would do"
    )


def _count_empty(audio: AudioSection, **changes: int) -> int:
    return build_logmel(audio.model_copy(update=changes)).empty_filters


def _late_evaluation(run: PreparedRun) -> str | None:
    every, steps = run.recipe.evaluation.every, _steps(run)
    if every is None or every < steps:
        return None
    fitting = max(steps // 4, 1)
    return (
        f"evaluation.every: nothing is scored on the way, since the training ends at step {steps} and the first of "
        f"these evaluations is at step {every}; train.checkpoint_every={fitting} evaluation.every={fitting} would do"
    )


def _less_than_a_step(run: PreparedRun) -> str | None:
    a_pass = run.batches().steps_per_epoch
    if run.recipe.train.epochs * a_pass >= 1:
        return None
    return (
        f"train.epochs: {run.recipe.train.epochs:g} epochs are less than a step, and one step is trained; "
        f"train.epochs=1 is a pass over the data, {counted(a_pass, 'step')}"
    )


def _long_timeout(run: PreparedRun) -> str | None:
    minutes = run.recipe.train.timeout_minutes
    if minutes <= 24 * 60:
        return None
    return (
        f"train.timeout_minutes: processes would wait {minutes / 60 / 24:,.1f} days for one that hangs; "
        "train.timeout_minutes=30 is the default"
    )


def _odd_statistics(run: PreparedRun) -> str | None:
    data = run.recipe.data
    if run.recipe.image is not None or data.mean is None or data.std is None:
        return None
    if -17 <= data.mean <= 8 and 0.3 <= data.std <= 20:
        return None
    return (
        f"data.mean: log-mels are standardised with mean {data.mean:.4g} and std {data.std:.4g}, but those of samples "
        "in [-1, 1] have a mean of -16 to 5 and a std of 1 to 8; data.mean=null data.std=null measures them"
    )


def _loud_samples(run: PreparedRun) -> str | None:
    reader, peaks = run.crops.reader, dict[str, float]()
    if not isinstance(reader, AudioCrops):
        return None
    generator = seeded_generator(Stream.STATISTICS_CROP, seed=run.recipe.seed, position=0)
    for clip_id in _spread(len(run.clips), MOST_HEARD):
        try:
            samples, _ = reader.read(clip := run.clips[clip_id], generator)
        except AudioError:  # told where it is trained on
            continue
        if samples.is_floating_point():
            peaks[str(clip.path)] = float(samples.abs().max())
    loud = {path: peak for path, peak in peaks.items() if peak > MOST_LOUD}
    if not loud:
        return None
    path, peak = max(loud.items(), key=lambda item: item[1])
    return (
        f"data.sets: {len(loud)} of {len(peaks)} clips that were looked at have samples far beyond [-1, 1], such as "
        f"{peak:,.0f} in {path}: floats at the scale of int16? Divide them by 32768 and write the files anew"
    )


MOST_LOUD = 16.0
"""Peak of samples that are taken to be meant so; those of int16 go up to 32768."""


RULES: tuple[Callable[[PreparedRun], str | None], ...] = (
    _slow_target,
    _low_rate,
    _low_clip,
    _padding,
    _large_model,
    _empty_filters,
    _late_evaluation,
    _less_than_a_step,
    _long_timeout,
    _odd_statistics,
    _loud_samples,
)
"""Each gives a doubt that starts with the field of the recipe, or None."""


def _steps(run: PreparedRun) -> int:
    return max(round(run.recipe.train.epochs * run.batches().steps_per_epoch), 1)


def _seconds_of(run: PreparedRun) -> NDArray[np.float64]:
    """Lengths of clips, s: all that the lists tell, or those of some files where they tell none."""
    known: NDArray[np.float64] = run.clips.durations[~np.isnan(run.clips.durations)]
    if len(known):
        return known
    found = []
    for clip_id in _spread(len(run.clips), MOST_PROBED):
        clip = run.clips[clip_id]
        try:
            found.append(max(audio_seconds(clip.path) - clip.start, 0.0))
        except AudioError:
            continue
    return np.array(found)


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many numbers below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
