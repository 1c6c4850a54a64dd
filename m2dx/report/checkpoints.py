"""The same few clips as a run's model sees them at its start and at each checkpoint that was kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

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
from m2dx.report.attention import AttentionMap, attention_maps, draw_map
from m2dx.report.embedding import patch_colours
from m2dx.report.masks import PatchMask
from m2dx.report.panels import Draw, strip_svg
from m2dx.report.reconstruction import (
    Reconstruction,
    Reconstructor,
    draw_error,
    draw_result,
    highest_error,
    load_reconstructor,
)
from m2dx.report.sounds import Sound
from m2dx.report.style import cover_patches, draw_grid_image, draw_logmel, limits_of
from m2dx.training.prepare import recorded_statistics

MOST_CHECKPOINTS = 5
"""Checkpoints that are shown beside the start, at most."""

Model = TypeVar("Model")
View = TypeVar("View")


@dataclass(frozen=True)
class Picture:
    """A picture of a strip, and what stands below it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Strip:
    """Pictures of one kind, one for each state of the model."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ClipPictures:
    """A clip and what the model makes of it."""

    name: str
    inputs: tuple[Picture, ...]
    strips: tuple[Strip, ...]


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


@dataclass(frozen=True, eq=False)
class EncoderView:
    """One clip as an encoder sees it."""

    attention: AttentionMap
    features: NDArray[np.float32]  # (F*T, D), all patches visible


def encoder_views(encoder: AudioEncoder, sounds: Sequence[Sound]) -> list[EncoderView]:
    """What an encoder makes of each sound: its features, and the attention of the loudest patch of the first half."""
    views = []
    for sound in sounds:
        attention = attention_maps(encoder, sound)[0]
        with torch.no_grad():
            tokens = encoder.encoder(torch.from_numpy(attention.logmel)[None, None])[0, 1:]  # (F*T, D)
        views.append(EncoderView(attention, tokens.float().numpy()))
    return views


def encoder_pictures(states: Mapping[str, Sequence[EncoderView]]) -> tuple[ClipPictures, ...]:
    """Features as colours, and attention, of each clip in each state; states by title. Nothing without states."""
    if not states:
        return ()
    # One set of colours for all clips: like patches of two clips look alike.
    joint = patch_colours([np.concatenate([view.features for view in views]) for views in states.values()])
    clips, first = [], 0
    for views in zip(*states.values(), strict=True):
        last = first + len(views[0].features)
        clips.append(_encoder_clip(dict(zip(states, views, strict=True)), [of[first:last] for of in joint]))
        first = last
    return tuple(clips)


def _encoder_clip(views: Mapping[str, EncoderView], colours: Sequence[NDArray[np.float64]]) -> ClipPictures:
    sound = next(iter(views.values())).attention
    grid = sound.weights.shape
    features = tuple(
        _picture(
            partial(
                draw_grid_image,
                values=of.reshape(*grid, 3),
                seconds=sound.seconds,
                mels=len(sound.logmel),
                limits=(0.0, 1.0),
            ),
            title,
            f"{title}: the features of the {grid[0]} x {grid[1]} patches of {sound.name} as colours.",
        )
        for title, of in zip(views, colours, strict=True)
    )
    attention = tuple(_attention(title, view.attention) for title, view in views.items())
    return ClipPictures(
        sound.name,
        inputs=(_input(sound),),
        strips=(Strip("Features as colours", features), Strip("Attention of the framed patch", attention)),
    )


def _input(of: AttentionMap | Reconstruction) -> Picture:
    draw = partial(draw_logmel, logmel=of.logmel, seconds=of.seconds)
    return _picture(draw, "Log-mel", f"Log-mel of {of.name}, {of.seconds:.3g} s.")


def _picture(draw: Draw, caption: str, label: str) -> Picture:
    return Picture(strip_svg(draw, label=label), caption)


def _attention(title: str, item: AttentionMap) -> Picture:
    strongest = float(item.weights.max())
    f, t = (int(index) for index in np.unravel_index(item.weights.argmax(), item.weights.shape))
    return _picture(
        partial(draw_map, item=item),
        f"{title}: up to {strongest:.1%}",
        f"{title}: attention of the patch (frequency {item.point[0]}, time {item.point[1]}) of {item.name}; it is "
        f"strongest, {strongest:.1%}, to the patch ({f}, {t}).",
    )


def reconstructions(
    model: Reconstructor, sounds: Sequence[Sound], *, mask_ratio: float
) -> list[Reconstruction]:
    """Each sound reconstructed from one random mask, the same whatever the model."""
    return [
        model.reconstruct(sound, PatchMask("random", ratio=mask_ratio, seed=number))
        for number, sound in enumerate(sounds)
    ]


def reconstruction_pictures(states: Mapping[str, Sequence[Reconstruction]]) -> tuple[ClipPictures, ...]:
    """Input, visible patches, reconstruction and error of each clip in each state; states by title."""
    if not states:
        return ()
    most = highest_error([item for items in states.values() for item in items])
    clips = zip(*states.values(), strict=True)
    return tuple(_reconstructed_clip(dict(zip(states, items, strict=True)), most) for items in clips)


def _reconstructed_clip(items: Mapping[str, Reconstruction], most: float) -> ClipPictures:
    first = next(iter(items.values()))
    limits, share = limits_of(first.logmel), float(np.mean(~first.is_masked))

    def draw_visible(axes: Axes) -> None:
        draw_logmel(axes, first.logmel, seconds=first.seconds)
        cover_patches(axes, first.is_masked, seconds=first.seconds, mels=len(first.logmel))

    visible = _picture(
        draw_visible,
        f"Visible: {share:.0%}",
        f"The {share:.0%} of the patches of {first.name} that the model sees; the others are grey.",
    )
    results = tuple(
        _picture(
            partial(draw_result, item=item, limits=limits),
            title,
            f"{title}: reconstruction of {item.name}, visible patches as they are.",
        )
        for title, item in items.items()
    )
    errors = tuple(
        _picture(
            partial(draw_error, item=item, most=most),
            f"{title}: MSE {item.masked_mse:.3f}",
            f"{title}: error of the reconstruction of {item.name}; mean square {item.masked_mse:.3f} where masked.",
        )
        for title, item in items.items()
    )
    return ClipPictures(
        first.name,
        inputs=(_input(first), visible),
        strips=(Strip("Reconstruction", results), Strip("Error (darker: larger)", errors)),
    )
