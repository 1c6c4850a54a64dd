"""Augmentation: mixup of waveforms, masks and resized crops of log-mels; random numbers of structured patchout.

All random numbers are drawn on the CPU from numpy generators, so they are the same on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CANVAS = (1.0, 1.5)
"""Size of the canvas of a random resize crop, relative to the log-mel (frequency, time); BYOL-A's."""
CROP_SCALE = (0.6, 1.5)
"""Smallest and largest size of a crop from the canvas along each axis, relative to the log-mel; BYOL-A's."""


@dataclass(frozen=True)
class StepRandom:
    """The generators of one step, one for each kind of augmentation: no setting changes the draws of another."""

    crop: np.random.Generator
    mixup: np.random.Generator
    masks: np.random.Generator
    resize: np.random.Generator
    patchout: np.random.Generator

    @classmethod
    def of(cls, seed: int, *, epoch: int, step: int) -> StepRandom:
        """The generators of a step; they depend only on the three numbers."""
        return cls(*map(np.random.default_rng, np.random.SeedSequence((seed, epoch, step)).spawn(5)))


def mixup(
    wav: Tensor, targets: Tensor, *, alpha: float, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Clips (B, N) and targets (B, C) mixed in pairs with the share lambda ~ Beta(alpha, alpha) of each clip.

    Paper: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. Waveforms are mixed, so power adds as it
    does in the air; partners are a permutation of the batch.
    """
    shares = torch.from_numpy(random.beta(alpha, alpha, len(wav))).float()[:, None]
    partners = torch.from_numpy(random.permutation(len(wav)))
    return mix(wav, partners, shares), mix(targets, partners, shares)


def mix(values: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """shares * values + (1 - shares) * values[partners], from values (B, K), partners (B,), shares (B, 1)."""
    shares = shares.to(values.device)
    return shares * values + (1.0 - shares) * values[partners.to(values.device)]


def mask_stripes(logmel: Tensor, *, mels: int, frames: int, random: np.random.Generator) -> Tensor:
    """Log-mels (B, 1, M, L) with a stripe of less than `mels` bands and one of less than `frames` frames set to 0.

    SpecAugment (Park et al., 2019), with one mask of each kind per clip; 0 is the mean of standardised log-mels.
    """
    for axis, longest in ((2, mels), (3, frames)):
        size = logmel.shape[axis]
        width = np.floor(random.random(len(logmel)) * min(longest, size))
        first = np.floor(random.random(len(logmel)) * (size - width + 1))
        places = np.arange(size)
        inside = (places >= first[:, None]) & (places < (first + width)[:, None])
        hidden = torch.from_numpy(inside).to(logmel.device)  # (B, size)
        shape = (len(logmel), 1, size, 1) if axis == 2 else (len(logmel), 1, 1, size)
        logmel = logmel.masked_fill(hidden.view(shape), 0.0)
    return logmel


def structured_patchout(
    grid: tuple[int, int], batch_size: int, *, ratio: float, random: np.random.Generator
) -> Tensor:
    """Indices (B, V) of the patches that stay where whole rows and columns of the grid (F, T) are dropped.

    PaSST (Koutini et al., 2022) drops given numbers of rows (frequency) and columns (time). The paper names one ratio:
    here the rows are a random number up to that share of them, the same for all clips of the batch, and the columns
    are as many as bring the share of dropped patches to the ratio. Which ones they are is each clip's own.
    """
    freq, time = grid
    rows = int(random.integers(min(freq - 1, int(ratio * freq + 1e-6)) + 1))
    columns = round(time * (1.0 - (1.0 - ratio) * freq / (freq - rows)))
    columns = min(max(columns, 0), time - 1)
    kept = []
    for _ in range(batch_size):
        stay_f = np.sort(random.permutation(freq)[rows:])
        stay_t = np.sort(random.permutation(time)[columns:])
        kept.append((stay_f[:, None] * time + stay_t).ravel())
    return torch.from_numpy(np.stack(kept))


def random_resize_crop(logmel: Tensor, *, random: np.random.Generator) -> Tensor:
    """A random crop of each log-mel (B, 1, M, L), resized to its size: shifts and stretches of pitch and time.

    BYOL-A (Niizumi et al., 2023): the log-mel is in the middle of a canvas of zeros that is 1.5 times as long. The crop
    has 0.6 to 1.5 times the log-mel's height and length, at most the canvas; interpolation is bicubic.
    """
    mels, frames = logmel.shape[-2:]
    canvas_size = [int(size * scale) for size, scale in zip((mels, frames), CANVAS, strict=True)]
    top, left = (canvas_size[0] - mels) // 2, (canvas_size[1] - frames) // 2
    canvas = F.pad(
        logmel, (left, canvas_size[1] - frames - left, top, canvas_size[0] - mels - top)
    )  # (B, 1, M, 1.5 L)
    resized = []
    for row in canvas:
        height, width = (
            int(np.clip(int(random.uniform(*CROP_SCALE) * size), 1, most))
            for size, most in zip((mels, frames), canvas_size, strict=True)
        )
        y = int(random.integers(canvas_size[0] - height + 1))
        x = int(random.integers(canvas_size[1] - width + 1))
        resized.append(resize(row[:, y : y + height, x : x + width], (mels, frames)))
    return torch.stack(resized)


def resize(crop: Tensor, size: tuple[int, int]) -> Tensor:
    """A crop (1, m, l) resized to (1, M, L), with its corners aligned."""
    return F.interpolate(crop[None], size=size, mode="bicubic", align_corners=True)[0]
