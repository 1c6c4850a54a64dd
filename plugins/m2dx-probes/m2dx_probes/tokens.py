"""The tokens of a task's clips: what an encoder gives before anything is averaged.

Shapes: n clips, S layers, K tokens of a clip, D width of a token.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from m2dx.contract.components import ClipEncoder, EvaluationTask
from m2dx.contract.errors import RecipeError, TrainingError
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.images import ImageEncoder
from m2dx.evaluation.features import MeanLogMel, device_of
from m2dx.model.precision import autocast

TokenKind = Literal["frames", "patches"]
Layers = Literal["last", "mix"] | Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
BATCH_SECONDS = 300.0
"""Audio that is encoded at a time, at most, unless one clip has more."""
CLIPS_AT_ONCE = 64
"""Clips whose tokens are float32 at a time, where they are only read."""


def token_maps(encoder: ClipEncoder, task: EvaluationTask, *, tokens: TokenKind, layers: Layers) -> Tensor:
    """The tokens (n, S, K, D) of all clips, float16, on the CPU.

    Of an audio encoder they are time frames by eq. (4) of M2D-X, or patches; of images patches; of the mean_logmel
    baseline the frames of its log-mel. Raises TrainingError where one is not finite in float16.
    """
    seconds, device = task.unit_seconds or 0.0, device_of(encoder)
    batch_size = min(32, max(int(BATCH_SECONDS / seconds), 1)) if seconds else 32
    maps, done = torch.empty(0), 0
    with torch.inference_mode(), autocast("fp32", device):
        for batch in task.batches(encoder, batch_size):
            found = torch.stack(_tokens(encoder, batch.to(device), tokens, layers), dim=1)  # (B, S, K, D)
            if done == 0:
                maps = torch.empty(len(task.clips), *found.shape[1:], dtype=torch.float16)
            maps[done : done + len(found)] = found.half().cpu()
            done += len(found)
    for rows in torch.arange(len(maps)).split(CLIPS_AT_ONCE):
        if not (finite := maps[rows].isfinite().flatten(1).all(1)).all():
            row = int(rows[~finite][0])
            raise TrainingError(
                f"tokens of evaluation task {task.name!r} must be finite in float16, but are not for "
                f"{task.clips[row].path}"
            )
    return maps


def token_width(encoder: ClipEncoder, tokens: TokenKind) -> int:
    """Width D of an encoder's tokens; RecipeError where it gives none."""
    if isinstance(encoder, MeanLogMel):
        return encoder.embed_dim // 2  # mean and deviation of each band
    if not isinstance(encoder, AudioEncoder | ImageEncoder):
        raise RecipeError(
            f"probes over tokens need an encoder that gives them, but {type(encoder).__name__} gives clip features "
            "alone; leave it out of evaluation.baselines"
        )
    return encoder.embed_dim if tokens == "frames" else encoder.encoder.size.embed_dim


def _tokens(encoder: ClipEncoder, batch: Tensor, tokens: TokenKind, layers: Layers) -> list[Tensor]:
    """Tokens (B, K, D) of each layer."""
    if isinstance(encoder, MeanLogMel):
        return [encoder.logmel(batch)[:, 0].mT]  # (B, 1, M, L) -> (B, L, M)
    if isinstance(encoder, ImageEncoder):
        return [encoder(batch).flatten(1, 2)]  # (B, rows, columns, D) -> (B, K, D)
    assert isinstance(encoder, AudioEncoder)
    found = [encoder(batch)] if layers == "last" else encoder.layers(batch)
    if isinstance(layers, tuple):
        found = [found[number - 1] for number in layers]
    if tokens == "frames":
        return found  # (B, T, F*D)
    return [
        frames.unflatten(2, (-1, encoder.encoder.size.embed_dim)).flatten(1, 2) for frames in found
    ]  # (B, T*F, D)


def check_size(
    encoder: ClipEncoder, task: EvaluationTask, *, tokens: TokenKind, layers: Layers, max_gb: float
) -> None:
    """RecipeError where the tokens of all clips take more than `max_gb`; a task of unknown length is let through."""
    count, width, depth = 0, token_width(encoder, tokens), 1
    if isinstance(encoder, ImageEncoder):
        count = encoder.encoder.grid.num_patches
    elif task.unit_seconds and isinstance(encoder, MeanLogMel | AudioEncoder):
        samples = max(1, round(task.unit_seconds * encoder.sample_rate))
        if isinstance(encoder, MeanLogMel):
            count = encoder.logmel.num_frames(samples)
        else:
            count = encoder.num_frames(samples) * (encoder.embed_dim // width)
            depth = {"last": 1, "mix": encoder.encoder.size.depth}.get(str(layers), len(layers))
    gb = 2 * len(task.clips) * depth * count * width / 1e9
    if gb > max_gb:
        raise RecipeError(
            f"the tokens of evaluation task {task.name!r} must take max_gb ({max_gb:g} GB) of memory at most, but take "
            f"{gb:.1f} GB ({len(task.clips):,} clips, {depth} layers, {count} tokens of {width}, float16); raise "
            "`max_gb`, take fewer `layers`, or shorten `unit_seconds`"
        )


class TokenStandardiser:
    """Brings each value of the tokens to mean 0 and variance 1 over the training clips; constant ones are shifted."""

    def __init__(self, maps: Tensor, rows: Tensor) -> None:
        """Statistics (S, 1, D) of the clips in `rows`."""
        count, total, squares = 0, torch.zeros(1), torch.zeros(1)
        for part in rows.split(CLIPS_AT_ONCE):
            x = maps[part].double()  # (b, S, K, D)
            count += x.shape[0] * x.shape[2]
            total = total + x.sum((0, 2))
            squares = squares + x.square().sum((0, 2))
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        std = torch.where(
            std <= 1e-4 * mean.abs().clamp_min(1e-4), 1.0, std
        )  # below what float16 can tell from zero
        self.mean, self.std = mean[:, None].float(), std[:, None].float()

    def __call__(self, maps: Tensor) -> Tensor:
        return (maps.float() - self.mean) / self.std
