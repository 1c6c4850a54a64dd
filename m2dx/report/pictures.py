"""The pictures of clips on the page of a run: as the model sees them in training, and at each checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from m2dx.contract.components import Mask, MaskedModel
from m2dx.contract.errors import M2dxError
from m2dx.contract.host import PluginHost
from m2dx.data.batches import ItemKey
from m2dx.data.crops import Batch, collate
from m2dx.encoder.audio import AudioEncoder, load_encoder
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.encoder.initial_weights import load_initial_weights
from m2dx.encoder.weights import read_weights
from m2dx.model.build import build_masked_model
from m2dx.model.shapes import build_logmel
from m2dx.model.views import DataStatistics
from m2dx.model.vit import encoder_of
from m2dx.recipe.schema import Recipe
from m2dx.report.attention import AttentionMap, attention_maps, outline_point
from m2dx.report.masks import PatchMask
from m2dx.report.reconstruction import Reconstruction, Reconstructor, highest_error, load_reconstructor
from m2dx.report.sounds import Sound
from m2dx.report.style import (
    ACCENT,
    Picture,
    draw_grid_image,
    draw_logmel,
    limits_of,
    logmel_picture,
    shade_patches,
)
from m2dx.training.prepare import PreparedRun

logger = logging.getLogger(__name__)

CLIPS_MASKED, CLIPS_BY_CHECKPOINT = 4, 3
MOST_CHECKPOINTS = 5
"""Checkpoints that are shown beside the start, at most."""
SHADE = 0.8  # opacity of the colour over the patch that is attended to most

View = TypeVar("View")


@dataclass(frozen=True)
class ClipPictures:
    """A clip and what the model makes of it: rows of pictures by what they are (empty: their titles say it)."""

    name: str
    strips: Mapping[str, Sequence[Picture]]


@dataclass(frozen=True)
class RunPictures:
    """Clips as the model sees them in training, and at each checkpoint; notes say what could not be drawn."""

    examples: Sequence[ClipPictures] = ()
    notes: Sequence[str] = ()
    checkpoints: Sequence[ClipPictures] = ()
    checkpoint_notes: Sequence[str] = ()
    reconstructs: bool = False  # whether the pictures at checkpoints are reconstructions


def draw_run(run: PreparedRun) -> RunPictures:
    """A few clips, evenly spread over the run's data, with crops, noise and masks from its seed: always the same.

    Nothing is raised: a picture that cannot be drawn must not cost the end of a training. It is logged, and noted.
    """
    if run.recipe.image is not None:
        return RunPictures(notes=("Pictures are drawn of audio only; this run was trained on images.",))
    notes: list[str] = []
    pictures = RunPictures()
    try:
        batch = _fixed_batch(run)
        notes += [
            f"Could not be read, so that another clip is shown: {path}: {why}" for path, why in batch.bad
        ]
        examples = masked_examples(run, batch)
        pictures = RunPictures(examples)
        names = [example.name for example in examples[:CLIPS_BY_CHECKPOINT]]
        sounds = [Sound(name, wav) for name, wav in zip(names, batch.inputs, strict=False)]
        shown = checkpoint_pictures(run.folder, run.recipe, sounds, run.host)
        pictures = replace(shown, examples=examples)
    except Exception as error:  # of any kind: see above
        logger.warning("without pictures of clips: %s", error, exc_info=not isinstance(error, M2dxError))
        kind = "" if isinstance(error, M2dxError) else f"{type(error).__name__}: "
        notes.append(f"Clips cannot be shown: {kind}{error}")
    return replace(pictures, notes=notes)


def _fixed_batch(run: PreparedRun) -> Batch:
    count = min(CLIPS_MASKED, len(run.clips))
    ids = [i * len(run.clips) // count for i in range(count)]
    return collate([run.crops[ItemKey(0, position, clip_id)] for position, clip_id in enumerate(ids)])


def masked_examples(run: PreparedRun, batch: Batch) -> list[ClipPictures]:
    """What the model sees of a batch in training: clean and noisy log-mel, and which patches are masked."""
    model = run.model.to("cpu")
    noisy, views = model.views(batch)
    grid = encoder_of(model.masked_model).grid.shape
    masked = Mask(batch.ids_shuffle, model.num_visible).is_masked.unflatten(1, grid)
    return [
        example_pictures(
            run.clips[int(clip_id)].path.name,
            clean=views.clean_logmel[i, 0].numpy(),
            noisy=noisy[i, 0].numpy(),
            is_masked=masked[i].numpy(),
            seconds=run.recipe.audio.crop_seconds,
        )
        for i, clip_id in enumerate(batch.clip_ids)
    ]


def example_pictures(
    name: str,
    *,
    clean: NDArray[np.floating],
    noisy: NDArray[np.floating],
    is_masked: NDArray[np.bool_],
    seconds: float,
) -> ClipPictures:
    """A clip's log-mel (M, L) clean, with noise if there is any, and without its masked patches (F, T)."""
    limits = limits_of(np.concatenate([clean.ravel(), noisy.ravel()]))
    draw = partial(draw_logmel, seconds=seconds, limits=limits)
    views = {"Clean": partial(draw, logmel=clean)}
    if not np.array_equal(clean, noisy):
        views["With noise: what is given"] = partial(draw, logmel=noisy)
    visible = f"Visible patches ({np.mean(~is_masked):.0%} of {is_masked.size})"
    views[visible] = partial(draw, logmel=noisy, is_masked=is_masked)
    return ClipPictures(
        name, {"": [Picture(title, view, f"Log-mel of {name}. {title}.") for title, view in views.items()]}
    )


def checkpoint_pictures(
    folder: Path, recipe: Recipe, sounds: Sequence[Sound], host: PluginHost
) -> RunPictures:
    """Pictures of the sounds at the run's start and at its checkpoints, at most `MOST_CHECKPOINTS`, evenly spread.

    Reconstructions and their errors, where the method gives them; otherwise what a patch attends to. A checkpoint that
    cannot be read is named in the notes.
    """
    kept = CheckpointFolder(folder / "checkpoints")
    steps = kept.steps()
    files = {f"Step {step:,}": kept.file(step) for step in spread(steps, MOST_CHECKPOINTS)}
    notes = [_kept(steps, recipe)]

    def attention(file: Path | None) -> list[AttentionMap]:
        encoder = first_encoder(recipe, host) if file is None else load_encoder(file)
        return [attention_maps(encoder, sound)[0] for sound in sounds]

    def reconstruction(file: Path | None) -> list[Reconstruction]:
        model = first_reconstructor(recipe, host) if file is None else load_reconstructor(file, host)
        masks = [PatchMask("random", ratio=recipe.model.mask_ratio, seed=i) for i in range(len(sounds))]
        return [model.reconstruct(sound, mask) for sound, mask in zip(sounds, masks, strict=True)]

    reconstructs = host.component("method", recipe.model.method.name).reconstructs
    if reconstructs:
        clips = reconstructed_clips(seen_by(files, reconstruction, notes))
    else:
        clips = [attention_clip(of) for of in seen_by(files, attention, notes)]
    return RunPictures(checkpoints=clips, checkpoint_notes=notes, reconstructs=reconstructs)


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` (2 or more) of the steps, evenly spread over them, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _kept(steps: Sequence[int], recipe: Recipe) -> str:
    if not steps:
        return "The run's folder has no checkpoints."
    train = recipe.train
    every = "" if train.keep_every is None else f" and those at multiples of step {train.keep_every:,}"
    shown = f", of which {MOST_CHECKPOINTS} are shown" if len(steps) > MOST_CHECKPOINTS else ""
    return (
        f"Checkpoints in the run's folder: {len(steps):,}{shown}. The recipe keeps the last {train.keep_last}{every}; "
        "train.keep_every keeps more on the way."
    )


def seen_by(
    files: Mapping[str, Path], view: Callable[[Path | None], list[View]], notes: list[str]
) -> list[dict[str, View]]:
    """Each clip as the model sees it at its start (None) and in each file; what cannot be read gets a note."""
    seen: dict[str, list[View]] = {}
    for title, file in {"Start": None, **files}.items():
        try:
            seen[title] = view(file)
        except (M2dxError, OSError) as error:
            notes.append(f"{title} is not shown: {error}")
    return [dict(zip(seen, views, strict=True)) for views in zip(*seen.values(), strict=True)]


def _first_model(recipe: Recipe, host: PluginHost) -> MaskedModel:
    """The model at the start of the run: weights from the seed, or those of `init_from`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_masked_model(recipe.audio, recipe.model, host, with_tokens=False)
    if recipe.init_from is not None:
        load_initial_weights(model, read_weights(recipe.init_from, whole=True), recipe.audio)
    return model.eval()


def first_encoder(recipe: Recipe, host: PluginHost) -> AudioEncoder:
    """The encoder at the start of a run of a resolved recipe."""
    online, data = encoder_of(_first_model(recipe, host)), DataStatistics.of(recipe)
    return AudioEncoder(online, build_logmel(recipe.audio), mean=data.mean, std=data.std).eval()


def first_reconstructor(recipe: Recipe, host: PluginHost) -> Reconstructor:
    """The model at the start of a run of a resolved recipe with a method that reconstructs."""
    model, data = _first_model(recipe, host), DataStatistics.of(recipe)
    short_clips = recipe.data.short_clips
    return Reconstructor(model, build_logmel(recipe.audio), data.mean, data.std, short_clips=short_clips)


def attention_clip(maps: Mapping[str, AttentionMap]) -> ClipPictures:
    """A clip, and what its loudest patch attends to in each state; states by title."""
    item = next(iter(maps.values()))
    pictures = []
    for title, of in maps.items():
        strongest = float(of.weights.max())
        f, t = (int(index) for index in np.unravel_index(of.weights.argmax(), of.weights.shape))
        caption = (
            f"{title}: attention of the patch (frequency {of.point[0]}, time {of.point[1]}) of {of.name}; it is "
            f"strongest, {strongest:.1%}, to the patch ({f}, {t})."
        )
        draw = partial(draw_attention_over, item=of)
        pictures.append(Picture(f"{title}: up to {strongest:.1%}", draw, caption))
    original = logmel_picture("Log-mel", item.logmel, item.seconds, name=item.name)
    return ClipPictures(item.name, {"": [original], "Attention of the framed patch": pictures})


def draw_attention_over(axes: Axes, item: AttentionMap) -> None:
    """The log-mel of a sound in grey, with more colour where the framed patch attends more."""
    limits, mels = limits_of(item.logmel), len(item.logmel)
    draw_grid_image(axes, item.logmel, seconds=item.seconds, mels=mels, limits=limits, colours="Greys")
    shade_patches(axes, SHADE * item.weights / max(float(item.weights.max()), 1e-12), colour=ACCENT)
    outline_point(axes, item)


def reconstructed_clips(clips: Sequence[Mapping[str, Reconstruction]]) -> list[ClipPictures]:
    """Input, visible patches, reconstruction and error of each clip in each state; states by title."""
    made = []
    for items in clips:
        most = highest_error([item for of_clip in clips for item in of_clip.values()])
        first = next(iter(items.values()))
        limits, share = limits_of(first.logmel), f"{np.mean(~first.is_masked):.0%}"
        draw = partial(draw_logmel, logmel=first.logmel, seconds=first.seconds, is_masked=first.is_masked)
        caption = f"The {share} of the patches of {first.name} that the model sees; the others are grey."
        strips = {
            "": [
                logmel_picture("Log-mel", first.logmel, first.seconds, name=first.name),
                Picture(f"Visible: {share}", draw, caption),
            ],
            "Reconstruction": [item.result_picture(title, limits) for title, item in items.items()],
            "Error (darker: larger)": [
                item.error_picture(f"{title}: MSE {item.masked_mse:.3f}", most)
                for title, item in items.items()
            ],
        }
        made.append(ClipPictures(first.name, strips))
    return made
