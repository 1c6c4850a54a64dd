"""The same few clips as a run's model sees them at its start and at each checkpoint that was kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from m2dx.contract.components import MaskedModel
from m2dx.contract.errors import CheckpointError, M2dxError
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import AudioEncoder, load_encoder
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.encoder.initial_weights import load_initial_weights
from m2dx.encoder.weights import read_weights
from m2dx.model.build import build_masked_model
from m2dx.model.shapes import build_logmel
from m2dx.model.vit import encoder_of
from m2dx.recipe.schema import Recipe
from m2dx.report import Reconstructor, Sound, load_reconstructor
from m2dx.report.clip_pictures import (
    ClipPictures,
    encoder_pictures,
    encoder_views,
    reconstruction_pictures,
    reconstructions,
)
from m2dx.training.prepare import recorded_statistics

MOST_CHECKPOINTS = 5
"""Checkpoints that are shown beside the start, at most."""

Model = TypeVar("Model")
View = TypeVar("View")


@dataclass(frozen=True)
class CheckpointPictures:
    """What the page shows of the checkpoints, and what it says about them."""

    reconstructs: bool = False  # whether the pictures are reconstructions
    clips: tuple[ClipPictures, ...] = ()
    notes: tuple[str, ...] = ()


def checkpoint_pictures(
    folder: Path, recipe: Recipe, sounds: Sequence[Sound], host: PluginHost
) -> CheckpointPictures:
    """Pictures of the sounds at the run's start and at its checkpoints, at most `MOST_CHECKPOINTS`, evenly spread.

    Reconstructions and their errors, where the method gives them; otherwise the encoder's features as colours, and what
    a patch attends to. A checkpoint that cannot be read is named in the notes.
    """
    kept = CheckpointFolder(folder / "checkpoints")
    steps = kept.steps()
    files = {f"Step {step:,}": kept.file(step) for step in spread(steps, MOST_CHECKPOINTS)}
    notes = [_kept(steps, recipe)]
    if host.component("method", recipe.model.method.name).reconstructs:
        made = _of_each(
            files,
            notes,
            start=lambda: first_reconstructor(recipe, host),
            read=lambda path: load_reconstructor(path, host),
            view=lambda model: reconstructions(model, sounds, mask_ratio=recipe.model.mask_ratio),
        )
        return CheckpointPictures(True, reconstruction_pictures(made), tuple(notes))
    seen = _of_each(
        files,
        notes,
        start=lambda: first_encoder(recipe, host),
        read=load_encoder,
        view=lambda encoder: encoder_views(encoder, sounds),
    )
    return CheckpointPictures(False, encoder_pictures(seen), tuple(notes))


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


def _of_each(
    files: dict[str, Path],
    notes: list[str],
    *,
    start: Callable[[], Model],
    read: Callable[[Path], Model],
    view: Callable[[Model], View],
) -> dict[str, View]:
    """What is seen at the start and in each file, one model at a time; what cannot be read gets a note."""
    seen: dict[str, View] = {}
    try:
        seen["Start"] = view(start())
    except (M2dxError, OSError) as error:
        notes.append(f"The start is not shown: {error}")
    for title, path in files.items():
        try:
            seen[title] = view(read(path))
        except (M2dxError, OSError) as error:
            notes.append(f"{title} is not shown: {error}")
    return seen


def _first_model(recipe: Recipe, host: PluginHost) -> MaskedModel:
    """The model as the run began: weights from the seed, or those of `init_from`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_masked_model(recipe.audio, recipe.model, host, with_tokens=False)
    if recipe.init_from is not None:
        load_initial_weights(model, read_weights(recipe.init_from, whole=True), recipe.audio)
    return model.eval()


def first_encoder(recipe: Recipe, host: PluginHost) -> AudioEncoder:
    """The encoder that a run of a resolved recipe begins with."""
    statistics = recorded_statistics(recipe)
    online = encoder_of(_first_model(recipe, host))
    return AudioEncoder(online, build_logmel(recipe.audio), mean=statistics.mean, std=statistics.std).eval()


def first_reconstructor(recipe: Recipe, host: PluginHost) -> Reconstructor:
    """The model that a run of a resolved recipe begins with; CheckpointError where it does not reconstruct."""
    statistics = recorded_statistics(recipe)
    model = _first_model(recipe, host)
    if not model.reconstructs:
        raise CheckpointError(f"model.method must be msm_mae, but is {recipe.model.method.name}")
    logmel = build_logmel(recipe.audio)
    return Reconstructor(
        model, logmel, mean=statistics.mean, std=statistics.std, short_clips=recipe.data.short_clips
    ).eval()
