"""What MSM-MAE makes of a spectrogram of which it sees some patches (MSM-MAE, 4.5.1 to 4.5.3)."""

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
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor, nn

from m2dx.contract.components import Mask, MaskedModel
from m2dx.contract.errors import CheckpointError
from m2dx.contract.host import PluginHost
from m2dx.data.crops import fit_length
from m2dx.data.logmel import LogMel
from m2dx.encoder.weights import read_weights
from m2dx.model.build import build_masked_model
from m2dx.model.multitask import MultiTask
from m2dx.model.patches import PatchGrid, patchify
from m2dx.model.shapes import build_logmel
from m2dx.model.trial import evaluating
from m2dx.model.views import ViewMaker
from m2dx.model.vit import encoder_of
from m2dx.recipe.schema import ModelSection
from m2dx.report.masks import PatchMask
from m2dx.report.sounds import Sound
from m2dx.report.style import (
    INK,
    LABEL_SIZE,
    draw_grid_image,
    draw_logmel,
    label_axes,
    limits_of,
    outline_patches,
    set_title,
)

PANEL_INCHES = (3.0, 1.35)
MOST_IN_A_ROW = 3
"""Reconstructions beside each other, at most; more go on in the next row."""


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
    seconds: float
    own_scale: bool = (
        False  # the model leaves out each patch's mean and spread: the input's own were put back
    )

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
        patch = (
            self.logmel.shape[0] // self.is_masked.shape[0],
            self.logmel.shape[1] // self.is_masked.shape[1],
        )
        masked = np.kron(self.is_masked, np.ones(patch, dtype=np.bool_))
        return float(np.square(self.error[masked], dtype=np.float64).mean())


class Reconstructor(nn.Module):
    """An MSM-MAE with its decoder, its log-mel transform and statistics: from sounds to reconstructions.

    Attributes: `sample_rate` (Hz, of the audio it wants), `num_samples` (length of its input), `grid` (F, T),
    `mask_ratio` (of its training).
    """

    def __init__(
        self,
        model: MaskedModel,
        logmel: LogMel,
        *,
        mean: float,
        std: float,
        mask_ratio: float = 0.75,
        short_clips: Literal["pad", "repeat"] = "pad",
    ) -> None:
        """`mask_ratio`: that of the training; `short_clips`: shorter sounds are filled up with silence, or repeated."""
        super().__init__()
        self.model, self.logmel, self.mean, self.std = model, logmel, mean, std
        self.mask_ratio, self.short_clips = mask_ratio, short_clips
        self.sample_rate = logmel.sample_rate
        self.patches = encoder_of(model).grid
        self.num_samples = self.patches.input_size[1] * logmel.hop_length
        self.grid = self.patches.shape

    @classmethod
    def of(cls, model: MultiTask, *, short_clips: Literal["pad", "repeat"] = "pad") -> Reconstructor | None:
        """That of a model in training, which it shares; None: it has no decoder, as M2D, or works on images."""
        views = model.views
        if not model.masked_model.reconstructs or not isinstance(views, ViewMaker):
            return None
        mean, std = views.statistics.mean, views.statistics.std
        ratio = 1 - model.num_visible / encoder_of(model.masked_model).grid.num_patches
        return cls(
            model.masked_model, views.logmel, mean=mean, std=std, mask_ratio=ratio, short_clips=short_clips
        )

    def standard_logmel(self, sounds: Sequence[Sound]) -> Tensor:
        """The standardised log-mels (B, 1, M, L) of the beginnings of sounds, filled up where they are shorter."""
        wavs = [
            fit_length(sound.wav.cpu().float().numpy(), self.num_samples, short_clips=self.short_clips)
            for sound in sounds
        ]
        device = next(self.model.parameters()).device
        logmel: Tensor = self.logmel.crop(torch.from_numpy(np.stack(wavs)).to(device))
        return (logmel - self.mean) / self.std

    @torch.no_grad()
    def predict(self, logmel: Tensor, is_masked: NDArray[np.bool_]) -> Tensor:
        """Standardised log-mels (B, 1, M, L) with the masked patches as predicted, and the visible ones as they are.

        A model with `standardise_target` predicts patches without their mean and spread. They are taken from the input,
        as MAE's pictures do, so that there is less error than the model would make alone.
        """
        masked = torch.from_numpy(is_masked).flatten().to(logmel.device)  # (P,)
        ids = masked.to(torch.uint8).argsort(stable=True).expand(len(logmel), -1)  # visible ones first
        with evaluating(self.model):
            output = self.model(logmel, Mask(ids, int((~masked).sum())), with_tokens=False)
        grid = self.patches
        values = patchify(logmel, grid.patch_size).float()  # (B, P, patch values)
        predicted = output.prediction.float()
        if self.model.standardise_target:
            scale = (values.var(dim=-1, keepdim=True) + 1e-6).sqrt()  # undoes m2dx.model.losses.standardise
            predicted = predicted * scale + values.mean(dim=-1, keepdim=True)
        return unpatchify(torch.where(masked[:, None], predicted, values), grid)

    def reconstruct(self, sound: Sound, mask: PatchMask, *, title: str | None = None) -> Reconstruction:
        """The beginning of a sound, reconstructed from the patches that the mask leaves visible; see `predict`."""
        logmel, is_masked = self.standard_logmel([sound]), mask.is_masked(self.grid)
        return Reconstruction(
            sound.name,
            mask.title(self.grid) if title is None else title,
            logmel[0, 0].cpu().numpy(),
            self.predict(logmel, is_masked)[0, 0].cpu().numpy(),
            is_masked,
            self.num_samples / self.sample_rate,
            own_scale=self.model.standardise_target,
        )


def unpatchify(values: Tensor, grid: PatchGrid) -> Tensor:
    """The spectrograms (B, 1, M, L) of patches (B, F*T, mels*frames): the inverse of `patchify` for one channel."""
    placed: Tensor = values.reshape(-1, *grid.shape, *grid.patch_size)  # (B, F, T, mels, frames)
    return placed.transpose(2, 3).reshape(-1, 1, *grid.input_size)


def load_reconstructor(path: str | Path, host: PluginHost | None = None) -> Reconstructor:
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
    recipe, config = weights.about["recipe"], weights.config
    if config.image is not None:
        raise CheckpointError(
            f"{path}: it must be a model of sounds to draw their spectrograms, but is of images"
        )
    host = PluginHost.discover() if host is None else host
    # A masking may be of a plugin that is not there, and is not needed.
    settings = {key: value for key, value in recipe["model"].items() if key != "masking"}
    method = settings["method"]["name"]
    settings["method"] = host.option_model("method", method).model_validate(settings["method"])
    section = ModelSection(**settings)
    if not host.component("method", method).reconstructs:
        raise CheckpointError(
            f"{path}: model.method must be msm_mae, but is {method}, which predicts features and has no "
            "decoder to the spectrogram; draw its attention or embedding instead"
        )
    model = build_masked_model(config.audio, section, host, with_tokens=bool(recipe["tasks"]))
    try:
        model.load_state_dict(weights.tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: the weights do not fit: {error}") from error
    return Reconstructor(
        model,
        build_logmel(config.audio),
        mean=config.mean,
        std=config.std,
        mask_ratio=section.mask_ratio,
        short_clips=recipe["data"]["short_clips"],
    ).eval()


def reconstruction_figure(
    model: Reconstructor,
    sounds: Sequence[Sound],
    masks: Sequence[PatchMask],
    *,
    outline: bool = True,
) -> Figure:
    """Input, reconstruction and error of each sound under each mask; titles say mask and MSE.

    Masks of the same pattern and ratio are numbered as attempts. `outline`: visible patches are outlined in white.
    """
    return draw_reconstructions(reconstructions(model, sounds, masks), outline=outline)


def reconstructions(
    model: Reconstructor, sounds: Sequence[Sound], masks: Sequence[PatchMask]
) -> list[list[Reconstruction]]:
    """Each sound under each mask, with titles for a picture."""
    titles = mask_titles(masks, model.grid)
    return [
        [model.reconstruct(sound, mask, title=title) for mask, title in zip(masks, titles, strict=True)]
        for sound in sounds
    ]


def mask_titles(masks: Sequence[PatchMask], grid: tuple[int, int]) -> list[str]:
    """What each mask is called over a grid (F, T); those of one name are numbered as attempts."""
    names = [mask.title(grid) for mask in masks]
    return [
        f"{name}, attempt {names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def draw_reconstructions(blocks: Sequence[Sequence[Reconstruction]], *, outline: bool = True) -> Figure:
    """A figure of reconstructions, a block for each sound, whose reconstructions share their input.

    One reconstruction of a sound: input, reconstruction, error in a row. Several: the input, then each reconstruction
    with its error below. Errors have one scale throughout (darker: higher), log-mels one for each sound. Raises
    ValueError without reconstructions.
    """
    if not blocks or not all(blocks):
        raise ValueError("a figure needs at least one reconstruction of each sound")
    longest = max(len(block) for block in blocks)
    columns = 3 if longest == 1 else 1 + min(longest, MOST_IN_A_ROW)
    rows = len(blocks) if longest == 1 else sum(2 * -(-len(block) // MOST_IN_A_ROW) for block in blocks)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.6), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    most = highest_error(list(chain(*blocks)))
    row, drawn = 0, []
    for block in blocks:
        input_axes = figure.add_subplot(grid[row, 0])
        draw_logmel(input_axes, block[0].logmel, seconds=block[0].seconds)
        set_title(input_axes, block[0].name)
        drawn.append(input_axes)
        for number, item in enumerate(block):
            line = row + 2 * (number // MOST_IN_A_ROW)
            column = 1 + number % MOST_IN_A_ROW
            below = (line, 2) if longest == 1 else (line + 1, column)
            result_axes = figure.add_subplot(grid[line, column])
            draw_result(result_axes, item, limits=limits_of(block[0].logmel), outline=outline)
            set_title(result_axes, item.title)
            error_axes = figure.add_subplot(grid[below])
            errors = draw_error(error_axes, item, most=most)
            set_title(error_axes, error_title(item))
            drawn += [result_axes, error_axes]
        row += 1 if longest == 1 else 2 * -(-len(block) // MOST_IN_A_ROW)
    _label_edges(drawn)
    _key(figure, errors, drawn, rows=rows, own_scale=any(item.own_scale for item in chain(*blocks)))
    return figure


def highest_error(items: Sequence[Reconstruction]) -> float:
    """Where the scale of errors ends: one value in 200 lies above it."""
    return max(float(np.percentile(np.concatenate([item.error.ravel() for item in items]), 99.5)), 1e-6)


def draw_result(
    axes: Axes, item: Reconstruction, *, limits: tuple[float, float], outline: bool = False
) -> None:
    """A reconstruction with the colours of its input's range; `outline`: visible patches are outlined in white."""
    mels = len(item.logmel)
    draw_logmel(axes, item.result, seconds=item.seconds, limits=limits)
    if outline:
        width = min(0.9, 40.0 / max(item.is_masked.shape))
        outline_patches(axes, ~item.is_masked, seconds=item.seconds, mels=mels, colour="white", width=width)


def draw_error(axes: Axes, item: Reconstruction, *, most: float) -> AxesImage:
    """The error of a reconstruction, darker for more, up to `most`."""
    image = draw_grid_image(
        axes, item.error, seconds=item.seconds, mels=len(item.logmel), limits=(0.0, most), colours="Greys"
    )
    axes.spines[:].set(visible=True, color=INK, alpha=0.25, linewidth=0.6)  # white ends somewhere
    return image


def error_title(item: Reconstruction) -> str:
    """The errors as a picture prints them: over the whole spectrogram, and over what had to be reconstructed."""
    return f"error: MSE {item.mse:.3f}, masked {item.masked_mse:.3f}"


def _label_edges(drawn: Sequence[Axes]) -> None:
    """Axis names in the first column and the last row; in between they would push the panels apart."""
    places = [axes.get_subplotspec() for axes in drawn]
    last = max(place.rowspan.start for place in places if place is not None)
    for axes, place in zip(drawn, places, strict=True):
        assert place is not None
        label_axes(axes, left=place.colspan.start == 0, bottom=place.rowspan.start == last)


def _key(figure: Figure, errors: AxesImage, drawn: Sequence[Axes], *, rows: int, own_scale: bool) -> None:
    """The scale of errors, and what a reader has to know of the reconstructions."""
    bar = figure.colorbar(
        errors, ax=list(drawn), location="right", shrink=0.9 if rows == 1 else 0.6, aspect=12 * rows, pad=0.01,
        extend="max",
    )  # fmt: skip
    bar.set_label("error (std of log-mels)", fontsize=LABEL_SIZE, color=INK)
    bar.ax.tick_params(labelsize=LABEL_SIZE, colors=INK)
    bar.outline.set_visible(False)
    if own_scale:
        told = "The model leaves out each patch's mean and spread; those of the input were put back."
        figure.supxlabel(told, fontsize=LABEL_SIZE, color=INK)
