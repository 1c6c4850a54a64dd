"""The pictures of clips on the page of a run: as the model sees them in training, and what it makes of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from m2dx.contract.components import MaskedModel
from m2dx.contract.errors import CheckpointError, M2dxError
from m2dx.contract.host import PluginHost
from m2dx.data.batches import ItemKey
from m2dx.data.crops import collate
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.encoder.initial_weights import load_initial_weights, weights_of_start
from m2dx.encoder.weights import read_weights
from m2dx.model.build import build_masked_model
from m2dx.model.vit import encoder_of
from m2dx.recipe.schema import Recipe
from m2dx.report.attention import attention_maps
from m2dx.report.reconstruction import reconstruct
from m2dx.report.style import Picture, Span, draw_logmel, limits_of
from m2dx.training.prepare import PreparedRun

logger = logging.getLogger(__name__)

CLIPS = 3


@dataclass(frozen=True, eq=False)
class SeenClip:
    """A clip as the model sees it in training; log-mels are standardised."""

    name: str
    clean: NDArray[np.float32]  # (M, L)
    noisy: NDArray[np.float32]  # (M, L), what the model is given; without noise the clean one
    is_masked: NDArray[np.bool_]  # (F, T)
    span: Span

    def picture(self, title: str, values: NDArray[np.float32], *, masked: bool = False) -> Picture:
        """A log-mel (M, L) in the colours of the clip; `masked`: without the masked patches."""
        limits = limits_of(np.concatenate([self.clean.ravel(), self.noisy.ravel()]))
        hidden = self.is_masked if masked else None
        draw = partial(draw_logmel, logmel=values, span=self.span, limits=limits, is_masked=hidden)
        return Picture(title, draw, f"Log-mel of {self.name}. {title}.")

    def visible(self, values: NDArray[np.float32]) -> Picture:
        """The visible patches of a log-mel (M, L) of the clip; the others are grey."""
        return self.picture(f"Visible: {np.mean(~self.is_masked):.0%}", values, masked=True)


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
        clips = seen_clips(run, notes)
        pictures = RunPictures([example_pictures(clip) for clip in clips])
        shown = checkpoint_pictures(run.folder, run.recipe, clips, run.host)
        notes += shown.notes
        pictures = replace(shown, examples=pictures.examples)
    except Exception as error:  # of any kind: see above
        logger.warning("without pictures of clips: %s", error, exc_info=not isinstance(error, M2dxError))
        kind = "" if isinstance(error, M2dxError) else f"{type(error).__name__}: "
        notes.append(f"Clips cannot be shown: {kind}{error}")
    return replace(pictures, notes=notes)


def seen_clips(run: PreparedRun, notes: list[str]) -> list[SeenClip]:
    """What the model sees of a few clips in training; notes name those that cannot be read."""
    count = min(CLIPS, len(run.clips))
    keys = (ItemKey(0, i, i * len(run.clips) // count) for i in range(count))
    batch = collate([run.crops[key] for key in keys]).to("cpu")
    notes += [f"Could not be read, so that another clip is shown: {path}: {why}" for path, why in batch.bad]
    model, audio = run.model.to("cpu"), run.recipe.audio
    (noisy,), views = model.views(batch)
    grid = encoder_of(model.masked_model).grid.shape
    masks = model.mask(batch, noisy).is_masked.unflatten(1, grid)
    masked = masks[:: run.recipe.model.masks_per_clip]  # one of each clip
    span = Span(audio.crop_seconds, (audio.f_min, audio.f_max))
    names = [run.clips[int(clip_id)].path.name for clip_id in batch.clip_ids]
    clean, given, hidden = (part.numpy() for part in (views.clean_logmel[:, 0], noisy[:, 0], masked))
    return [SeenClip(*seen, span) for seen in zip(names, clean, given, hidden, strict=True)]


def example_pictures(clip: SeenClip) -> ClipPictures:
    """A clip's log-mel clean, with noise and augmentations if there are any, and without its masked patches."""
    row = [clip.picture("Input", clip.clean)]
    if not np.array_equal(clip.clean, clip.noisy):
        row.append(clip.picture("As it is trained on", clip.noisy))
    return ClipPictures(clip.name, [*row, clip.visible(clip.noisy)], clip.span)


def checkpoint_pictures(
    folder: Path, recipe: Recipe, clips: Sequence[SeenClip], host: PluginHost
) -> RunPictures:
    """The clips at the run's start and at its newest checkpoint, a row each; notes name what cannot be read.

    Reconstructions, where the method gives them; otherwise what the loudest patch of the first half attends to.
    """
    kept, notes = CheckpointFolder(folder / "checkpoints"), list[str]()
    files: dict[str, Path | None] = {"Start": None}
    files |= {f"Step {step:,}": kept.file(step) for step in kept.steps()[-1:]}
    if len(files) == 1:
        notes.append("The run's folder has no checkpoints.")
    models: dict[str, MaskedModel] = {}
    for title, file in files.items():
        try:
            models[title] = model_at(recipe, host, file)
        except (M2dxError, OSError) as error:
            notes.append(f"{title} is not shown: {error}")
    reconstructs = host.component("method", recipe.model.method.name).reconstructs
    draw = _reconstructions if reconstructs else _attention
    drawn = draw(models, clips) if models else ()
    return RunPictures(notes=notes, checkpoints=drawn, reconstructs=reconstructs)


def model_at(recipe: Recipe, host: PluginHost, file: Path | None) -> MaskedModel:
    """The model at a run's checkpoint, as far as it is drawn; None: at its start, from the seed or `init_from`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_masked_model(recipe.audio, recipe.model, host, with_tokens=False)
    if file is not None:
        weights = read_weights(file)
        whole = model.reconstructs
        part, state = (model, weights.tensors) if whole else (model.online, weights.part("online"))
        with CheckpointError.blaming(f"{file}: the weights do not fit"):
            part.load_state_dict({name: state[name] for name in part.state_dict()})
    elif recipe.init_from is not None:
        load_initial_weights(model, weights_of_start(recipe, encoder_of(model), host), recipe.audio)
    return model.eval()


def _attention(models: Mapping[str, MaskedModel], clips: Sequence[SeenClip]) -> list[ClipPictures]:
    """With one scale of colours for all."""
    maps = []
    for clip in clips:
        logmel, encoders = torch.from_numpy(clip.clean)[None, None], map(encoder_of, models.values())
        maps.append([attention_maps(encoder, logmel, clip.span, name=clip.name)[0] for encoder in encoders])
    most, rows = max(item.strongest for items in maps for item in items), []
    for clip, items in zip(clips, maps, strict=True):
        titled = zip(models, items, strict=True)
        row = [item.picture(f"{title}: up to {item.strongest:.1%}", most) for title, item in titled]
        rows.append(ClipPictures(clip.name, [clip.picture("Input", clip.clean), *row], clip.span))
    return rows


def _reconstructions(models: Mapping[str, MaskedModel], clips: Sequence[SeenClip]) -> list[ClipPictures]:
    """The visible patches, and what the model makes of them."""
    rows = []
    for clip in clips:
        row, logmel = [clip.visible(clip.clean)], torch.from_numpy(clip.clean)[None, None]
        for title, model in models.items():
            result = reconstruct(model, logmel, clip.is_masked)[0, 0].numpy()
            mse = np.square(result - clip.clean, dtype=np.float64).mean() / clip.is_masked.mean()
            row.append(clip.picture(f"{title}: MSE {mse:.3f}", result))  # of visible patches it is 0
        rows.append(ClipPictures(clip.name, row, clip.span))
    return rows
