"""Pictures of clips in several states of one model: features, attention, reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from m2dx.encoder.audio import AudioEncoder
from m2dx.report import AttentionMap, PatchMask, Reconstruction, Reconstructor, Sound
from m2dx.report.attention import attention_maps
from m2dx.report.feature_colours import feature_colours
from m2dx.report.images import (
    ATTENTION_COLOURS,
    ERROR_COLOURS,
    Picture,
    as_patches,
    coloured,
    marked,
    picture,
    rgb,
)
from m2dx.report.style import limits_of

_MAP_PIXELS = (80, 120)  # of a map of patches, at least


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
    joint = feature_colours([np.concatenate([view.features for view in views]) for views in states.values()])
    clips, begin = [], 0
    for number, first in enumerate(next(iter(states.values()))):
        end = begin + len(first.features)
        colours = [state[begin:end] for state in joint]
        views = {title: views[number] for title, views in states.items()}
        clips.append(_encoder_clip(views, colours))
        begin = end
    return tuple(clips)


def _encoder_clip(views: Mapping[str, EncoderView], colours: Sequence[NDArray[np.float64]]) -> ClipPictures:
    first = next(iter(views.values())).attention
    name, grid, size = first.name, first.weights.shape, _size(first.logmel)
    features = tuple(
        picture(
            as_patches(rgb(shares.reshape(*grid, 3)), size),
            caption=title,
            alt=f"{title}: the features of the {grid[0]} x {grid[1]} patches of {name} as colours.",
            flat=True,
        )
        for title, shares in zip(views, colours, strict=True)
    )
    attention = tuple(_attention(title, view.attention, size) for title, view in views.items())
    return ClipPictures(
        name,
        inputs=(_logmel(first.logmel, caption="Log-mel", alt=f"Log-mel of {name}, {first.seconds:.3g} s."),),
        strips=(Strip("Features as colours", features), Strip("Attention of the framed patch", attention)),
    )


def _attention(title: str, item: AttentionMap, size: tuple[int, int]) -> Picture:
    strongest = max(float(item.weights.max()), 1e-12)
    pixels = coloured(item.weights, limits=(0.0, strongest), colours=ATTENTION_COLOURS)
    f, t = (int(index) for index in np.unravel_index(item.weights.argmax(), item.weights.shape))
    return picture(
        marked(as_patches(pixels, size), item.point, item.weights.shape),
        caption=f"{title}: up to {strongest:.1%}",
        alt=(
            f"{title}: attention of the patch (frequency {item.point[0]}, time {item.point[1]}) of {item.name}; it is "
            f"strongest, {strongest:.1%}, to the patch ({f}, {t})."
        ),
        flat=True,
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
    errors = np.concatenate([item.error.ravel() for items in states.values() for item in items])
    most = max(float(np.percentile(errors, 99.5)), 1e-6)
    clips = zip(*states.values(), strict=True)
    return tuple(_reconstructed_clip(dict(zip(states, items, strict=True)), most) for items in clips)


def _reconstructed_clip(items: Mapping[str, Reconstruction], most_error: float) -> ClipPictures:
    first = next(iter(items.values()))
    name, limits = first.name, limits_of(first.logmel)
    patch = [whole // count for whole, count in zip(first.logmel.shape, first.is_masked.shape, strict=True)]
    visible = np.where(np.kron(first.is_masked, np.ones(patch, dtype=np.bool_)), np.nan, first.logmel)
    share = float(np.mean(~first.is_masked))
    results, errors = [], []
    for title, item in items.items():
        results.append(
            _logmel(
                item.result,
                limits=limits,
                caption=title,
                alt=f"{title}: reconstruction of {name}, visible patches as they are.",
            )
        )
        errors.append(
            picture(
                coloured(item.error, limits=(0.0, most_error), colours=ERROR_COLOURS),
                caption=f"{title}: MSE {item.masked_mse:.3f}",
                alt=f"{title}: error of the reconstruction of {name}; mean square {item.masked_mse:.3f} where masked.",
            )
        )
    return ClipPictures(
        name,
        inputs=(
            _logmel(
                first.logmel,
                limits=limits,
                caption="Log-mel",
                alt=f"Log-mel of {name}, {first.seconds:.3g} s.",
            ),
            _logmel(
                visible,
                limits=limits,
                caption=f"Visible: {share:.0%}",
                alt=f"The {share:.0%} of the patches of {name} that the model sees; the others are grey.",
            ),
        ),
        strips=(
            Strip("Reconstruction", tuple(results)),
            Strip("Error (darker: larger)", tuple(errors)),
        ),
    )


def _logmel(
    values: NDArray[np.floating], *, caption: str, alt: str, limits: tuple[float, float] | None = None
) -> Picture:
    return picture(coloured(values, limits=limits or limits_of(values)), caption=caption, alt=alt)


def _size(logmel: NDArray[np.floating]) -> tuple[int, int]:
    """(height, width) of a map beside that log-mel, in pixels."""
    return max(logmel.shape[0], _MAP_PIXELS[0]), max(min(logmel.shape[1], 2 * _MAP_PIXELS[1]), _MAP_PIXELS[1])
