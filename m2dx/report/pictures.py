"""The pictures of clips on the page of a run: as the model sees them in training, and what it makes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
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
from m2dx.report.attention import AttentionMap, attention_maps
from m2dx.report.masks import PatchMask
from m2dx.report.reconstruction import Reconstruction, Reconstructor, load_reconstructor
from m2dx.report.sounds import Sound
from m2dx.report.style import Picture, Span, draw_logmel, limits_of, logmel_picture
from m2dx.training.prepare import PreparedRun

logger = logging.getLogger(__name__)

CLIPS = 3

View = TypeVar("View")


@dataclass(frozen=True)
class ClipPictures:
    """A clip as the model sees it, or what it makes of it: spectrograms that stand in a row."""

    name: str
    row: Sequence[Picture]
    span: Span


@dataclass(frozen=True)
class RunPictures:
    """Clips as the model sees them in training, and what it makes of them; notes say what could not be drawn."""

    examples: Sequence[ClipPictures] = ()
    notes: Sequence[str] = ()
    checkpoints: Sequence[ClipPictures] = ()
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
        count = min(CLIPS, len(run.clips))
        ids = [i * len(run.clips) // count for i in range(count)]
        batch = collate([run.crops[ItemKey(0, position, clip_id)] for position, clip_id in enumerate(ids)])
        notes += [
            f"Could not be read, so that another clip is shown: {path}: {why}" for path, why in batch.bad
        ]
        examples = masked_examples(run, batch)
        pictures = RunPictures(examples)
        sounds = [Sound(clip.name, wav) for clip, wav in zip(examples, batch.inputs, strict=True)]
        shown = checkpoint_pictures(run.folder, run.recipe, sounds, run.host)
        notes += shown.notes
        pictures = replace(shown, examples=examples)
    except Exception as error:  # of any kind: see above
        logger.warning("without pictures of clips: %s", error, exc_info=not isinstance(error, M2dxError))
        kind = "" if isinstance(error, M2dxError) else f"{type(error).__name__}: "
        notes.append(f"Clips cannot be shown: {kind}{error}")
    return replace(pictures, notes=notes)


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
            span=Span(run.recipe.audio.crop_seconds, (run.recipe.audio.f_min, run.recipe.audio.f_max)),
        )
        for i, clip_id in enumerate(batch.clip_ids)
    ]


def example_pictures(
    name: str,
    *,
    clean: NDArray[np.floating],
    noisy: NDArray[np.floating],
    is_masked: NDArray[np.bool_],
    span: Span,
) -> ClipPictures:
    """A clip's log-mel (M, L) clean, with noise if there is any, and without its masked patches (F, T)."""
    limits = limits_of(np.concatenate([clean.ravel(), noisy.ravel()]))
    draw = partial(draw_logmel, span=span, limits=limits)
    views = {"Input": partial(draw, logmel=clean)}
    if not np.array_equal(clean, noisy):
        views["With noise"] = partial(draw, logmel=noisy)
    visible = f"Visible: {np.mean(~is_masked):.0%}"
    views[visible] = partial(draw, logmel=noisy, is_masked=is_masked)
    row = [Picture(title, view, f"Log-mel of {name}. {title}.") for title, view in views.items()]
    return ClipPictures(name, row, span)


def checkpoint_pictures(
    folder: Path, recipe: Recipe, sounds: Sequence[Sound], host: PluginHost
) -> RunPictures:
    """The sounds at the run's start and at its newest checkpoint, a row each; notes name what cannot be read.

    Reconstructions, where the method gives them; otherwise what a patch attends to.
    """
    kept, notes = CheckpointFolder(folder / "checkpoints"), list[str]()
    files: dict[str, Path | None] = {"Start": None}
    files |= {f"Step {step:,}": kept.file(step) for step in kept.steps()[-1:]}
    if len(files) == 1:
        notes.append("The run's folder has no checkpoints.")

    def attention(file: Path | None) -> list[AttentionMap]:
        encoder = first_encoder(recipe, host) if file is None else load_encoder(file)
        return [attention_maps(encoder, sound)[0] for sound in sounds]

    def reconstruction(file: Path | None) -> list[Reconstruction]:
        model = first_reconstructor(recipe, host) if file is None else load_reconstructor(file, host)
        masks = [PatchMask("random", ratio=recipe.model.mask_ratio, seed=i) for i in range(len(sounds))]
        return [model.reconstruct(sound, mask) for sound, mask in zip(sounds, masks, strict=True)]

    reconstructs = host.component("method", recipe.model.method.name).reconstructs
    if reconstructs:
        clips = [reconstructed_clip(states) for states in seen_by(files, reconstruction, notes)]
    else:
        clips = attention_clips(seen_by(files, attention, notes))
    return RunPictures(checkpoints=clips, notes=notes, reconstructs=reconstructs)


def seen_by(
    files: Mapping[str, Path | None], view: Callable[[Path | None], list[View]], notes: list[str]
) -> list[dict[str, View]]:
    """Each clip as the model sees it at its start (None) and in each file; what cannot be read gets a note."""
    seen: dict[str, list[View]] = {}
    for title, file in files.items():
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


def attention_clips(clips: Sequence[Mapping[str, AttentionMap]]) -> list[ClipPictures]:
    """Each clip, and what its loudest patch attends to in each state, with one scale of colours for all."""
    most = max((item.strongest for states in clips for item in states.values()), default=1.0)
    made = []
    for states in clips:
        item = next(iter(states.values()))
        maps = [of.picture(f"{title}: up to {of.strongest:.1%}", most) for title, of in states.items()]
        made.append(
            ClipPictures(
                item.name, [logmel_picture("Input", item.logmel, item.span, name=item.name), *maps], item.span
            )
        )
    return made


def reconstructed_clip(states: Mapping[str, Reconstruction]) -> ClipPictures:
    """The visible patches of a clip, and what the model makes of them in each state."""
    first = next(iter(states.values()))
    limits, share = limits_of(first.logmel), f"{np.mean(~first.is_masked):.0%}"
    draw = partial(
        draw_logmel, logmel=first.logmel, span=first.span, limits=limits, is_masked=first.is_masked
    )
    caption = f"The {share} of the patches of {first.name} that the model sees; the others are grey."
    results = [
        item.result_picture(f"{title}: MSE {item.masked_mse:.3f}", limits) for title, item in states.items()
    ]
    return ClipPictures(first.name, [Picture(f"Visible: {share}", draw, caption), *results], first.span)
