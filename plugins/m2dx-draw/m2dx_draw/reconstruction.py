"""Spectrograms that MSM-MAE reconstructs from some of their patches (MSM-MAE, 4.5.1 to 4.5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from m2dx.contract.components import MaskedModel
from m2dx.contract.errors import CheckpointError
from m2dx.contract.host import PluginHost
from m2dx.data.crops import fit_length
from m2dx.data.logmel import LogMel
from m2dx.encoder.weights import read_weights
from m2dx.model.build import build_masked_model
from m2dx.model.shapes import build_logmel
from m2dx.model.vit import encoder_of
from m2dx.recipe.schema import ModelSection
from m2dx.report.reconstruction import reconstruct
from m2dx.report.style import (
    INK,
    LABEL_SIZE,
    Picture,
    Span,
    draw_grid_image,
    draw_logmel,
    limits_of,
    outline_patches,
)
from m2dx_draw.masks import PatchMask
from m2dx_draw.panels import logmel_picture, numbered, panel_figure
from m2dx_draw.sounds import Sound, griffin_lim

PANEL_INCHES = (3.0, 1.5)
MOST_IN_A_ROW = 3
"""Most reconstructions beside each other; further ones stand in the next row."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A spectrogram beside what the model made of its visible patches.

    Log-mels are standardised with the statistics of the model's training data, so that errors are in units of its
    standard deviation, as its loss is.
    """

    name: str  # of the sound
    title: str  # of the mask, attempt or checkpoint
    logmel: NDArray[np.float32]  # (M, L), the input
    result: NDArray[np.float32]  # (M, L): visible patches as they are, masked ones as predicted
    is_masked: NDArray[np.bool_]  # (F, T)
    span: Span
    own_scale: bool = False
    """The model leaves out each patch's mean and spread: the input's own were put back."""

    @property
    def error(self) -> NDArray[np.float32]:
        """(M, L), the absolute difference of input and result (the RMS of a single value)."""
        difference: NDArray[np.float32] = np.abs(self.result - self.logmel)
        return difference

    @property
    def mse(self) -> float:
        """Mean squared error over the whole spectrogram, visible patches included (as in MSM-MAE, figure 4)."""
        return float(np.square(self.error, dtype=np.float64).mean())

    @property
    def masked_mse(self) -> float:
        """Mean squared error over the masked patches: the model's loss."""
        (mels, frames), (freq, time) = self.logmel.shape, self.is_masked.shape
        masked = np.kron(self.is_masked, np.ones((mels // freq, frames // time), dtype=np.bool_))
        return float(np.square(self.error[masked], dtype=np.float64).mean())

    def result_picture(self, title: str, limits: tuple[float, float], *, outline: bool = False) -> Picture:
        """The reconstruction, in colours between `limits`; `outline`: visible patches are outlined in white."""

        def draw(axes: Axes) -> None:
            draw_logmel(axes, self.result, span=self.span, limits=limits)
            if outline:
                width = min(0.9, 40.0 / max(self.is_masked.shape))
                outline_patches(axes, ~self.is_masked, colour="white", width=width)

        return Picture(title, draw, f"{title}: reconstruction of {self.name}, visible patches as they are.")

    def error_picture(self, title: str, most: float) -> Picture:
        """The error, darker for more, up to `most`."""

        def draw(axes: Axes) -> None:
            draw_grid_image(axes, self.error, span=self.span, limits=(0.0, most), colours="Greys")
            axes.spines[:].set(visible=True, color=INK, alpha=0.25, linewidth=0.6)  # white ends somewhere

        caption = f"error of reconstructing {self.name}; mean square {self.masked_mse:.3f} where masked."
        return Picture(title, draw, f"{title.partition(':')[0]}: {caption}")


@dataclass(eq=False)
class Reconstructor:
    """An MSM-MAE with its decoder, its log-mel transform and statistics: from sounds to reconstructions."""

    model: MaskedModel
    logmel: LogMel
    mean: float
    std: float
    mask_ratio: float = 0.75  # of its training
    short_clips: Literal["pad", "repeat"] = "pad"  # shorter sounds are filled up with silence, or repeated

    def __post_init__(self) -> None:
        self.sample_rate = self.logmel.sample_rate  # Hz, of the audio it wants
        self.patches = encoder_of(self.model).grid
        self.grid = self.patches.shape  # (F, T)
        self.num_samples = self.patches.input_size[1] * self.logmel.hop_length  # length of its input

    def standard_logmel(self, sound: Sound) -> Tensor:
        """The standardised log-mel (1, 1, M, L) of the start of a sound; a shorter sound is filled up."""
        wav = fit_length(sound.wav.cpu().float().numpy(), self.num_samples, short_clips=self.short_clips)
        device = next(self.model.parameters()).device
        logmel: Tensor = self.logmel.crop(torch.from_numpy(wav)[None].to(device))
        return (logmel - self.mean) / self.std

    def wav(self, logmel: NDArray[np.float32]) -> Tensor:
        """(N,) samples of a standardised log-mel (M, L); N = L x hop_length. The same each time."""
        return griffin_lim(self.logmel, (torch.from_numpy(logmel) * self.std + self.mean).exp())

    def reconstruct(self, sound: Sound, mask: PatchMask, *, title: str | None = None) -> Reconstruction:
        """The start of a sound, reconstructed from the patches that the mask leaves visible.

        See `m2dx.report.reconstruction.reconstruct`.
        """
        logmel, is_masked = self.standard_logmel(sound), mask.is_masked(self.grid)
        return Reconstruction(
            sound.name,
            mask.title(self.grid) if title is None else title,
            logmel[0, 0].cpu().numpy(),
            reconstruct(self.model, logmel, is_masked)[0, 0].cpu().numpy(),
            is_masked,
            Span.of(self.logmel, self.patches.input_size[1]),
            own_scale=self.model.standardise_target,
        )


def load_reconstructor(path: str | Path) -> Reconstructor:
    """The MSM-MAE of a run's folder (its newest checkpoint) or of a checkpoint, in eval mode, on the CPU.

    CheckpointError where the path is missing, damaged, an export (which has no decoder), or of another method.
    """
    weights = read_weights(path)
    if weights.source != "checkpoint":
        raise CheckpointError(
            f"{path} is {'an exported' if weights.source == 'export' else 'a published'} encoder, but a reconstruction "
            "needs the decoder, and only checkpoints of m2dx are read with theirs; give the run's folder, or a "
            "checkpoint of it"
        )
    config, recipe = weights.config, weights.config.recipe
    assert recipe is not None
    if config.image is not None:
        raise CheckpointError(
            f"{path}: it must be a model of sounds to draw their spectrograms, but is of images"
        )
    host = PluginHost.discover()
    # A masking may be of a plugin that is not there, and is not needed.
    settings = {key: value for key, value in recipe["model"].items() if key != "masking"}
    method = settings["method"]["name"]
    for kind in {"method", "backbone"} & set(settings):  # of which a plugin may have options
        settings[kind] = host.option_model(kind, settings[kind]["name"]).model_validate(settings[kind])
    section = ModelSection(**settings)
    if not host.component("method", method).reconstructs:
        raise CheckpointError(
            f"{path}: model.method must be msm_mae, but is {method}, which predicts features and has no "
            "decoder to the spectrogram; draw its attention or embedding instead"
        )
    model = build_masked_model(config.audio, section, host, with_tokens=False)  # tasks draw nothing
    needed = model.state_dict().keys()
    with CheckpointError.blaming(f"{path}: the weights do not fit"):
        model.load_state_dict({name: value for name, value in weights.tensors.items() if name in needed})
    short_clips = recipe["short_clips"]
    logmel = build_logmel(config.audio)
    return Reconstructor(model.eval(), logmel, config.mean, config.std, section.mask_ratio, short_clips)


def reconstruction_figure(
    model: Reconstructor, sounds: Sequence[Sound], masks: Sequence[PatchMask]
) -> Figure:
    """Input, reconstruction and error of each sound under each mask; titles say mask and MSE.

    Masks of the same pattern and ratio are numbered as attempts. Visible patches are outlined in white.
    """
    return draw_reconstructions(reconstructions(model, sounds, masks))


def reconstructions(
    model: Reconstructor, sounds: Sequence[Sound], masks: Sequence[PatchMask]
) -> list[list[Reconstruction]]:
    """Each sound under each mask, with titles for a picture."""
    titles = numbered([mask.title(model.grid) for mask in masks], ", attempt {}")
    return [
        [model.reconstruct(sound, mask, title=title) for mask, title in zip(masks, titles, strict=True)]
        for sound in sounds
    ]


def draw_reconstructions(blocks: Sequence[Sequence[Reconstruction]], *, outline: bool = True) -> Figure:
    """A figure of reconstructions, a block for each sound, whose reconstructions share their input.

    One reconstruction of a sound: input, reconstruction, error in a row. Several: the input, then each reconstruction
    with its error below. Errors have one scale throughout (darker: higher), log-mels one for each sound. Raises
    ValueError without reconstructions.
    """
    if not blocks or not all(blocks):
        raise ValueError("a figure needs at least one reconstruction of each sound")
    items = list(chain(*blocks))
    most = highest_error(items)
    rows: list[list[Picture | None]] = []
    for block in blocks:
        limits = limits_of(block[0].logmel)
        results = [item.result_picture(item.title, limits, outline=outline) for item in block]
        errors = [
            item.error_picture(f"error: MSE {item.mse:.3f}, masked {item.masked_mse:.3f}", most)
            for item in block
        ]
        first: Picture | None = logmel_picture(block[0].name, block[0].logmel, block[0].span)
        if len(items) == len(blocks):
            rows.append([first, *results, *errors])
            continue
        for start in range(0, len(block), MOST_IN_A_ROW):
            part = slice(start, start + MOST_IN_A_ROW)
            rows += [[first, *results[part]], [None, *errors[part]]]
            first = None
    figure = panel_figure(rows, inches=PANEL_INCHES)
    _key(figure, rows=len(rows), own_scale=any(item.own_scale for item in items))
    return figure


def highest_error(items: Sequence[Reconstruction]) -> float:
    """Where the scale of errors ends: one value in 200 lies above it."""
    return max(float(np.percentile(np.concatenate([item.error.ravel() for item in items]), 99.5)), 1e-6)


def _key(figure: Figure, *, rows: int, own_scale: bool) -> None:
    """The scale of errors, which the last panel has, and what a reader has to know of the reconstructions."""
    panels = list(figure.axes)
    bar = figure.colorbar(
        panels[-1].images[0], ax=panels, location="right", shrink=0.9 if rows == 1 else 0.6, aspect=12 * rows,
        pad=0.01, extend="max",
    )  # fmt: skip
    bar.set_label("error (std of log-mels)", fontsize=LABEL_SIZE, color=INK)
    bar.ax.tick_params(labelsize=LABEL_SIZE, colors=INK)
    bar.outline.set_visible(False)
    if own_scale:
        caption = "The model leaves out each patch's mean and spread; those of the input were put back."
        figure.supxlabel(caption, fontsize=LABEL_SIZE, color=INK)
