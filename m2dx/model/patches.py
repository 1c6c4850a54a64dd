"""The grid of patches over a log-mel spectrogram (or an image), its positions, and features by time frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_positions(shape: tuple[int, int], dim: int) -> Tensor:
    """Fixed 2-D sine-cosine positions (1, 1 + F*T, D), the class token's (zeros) first, as MAE has them.

    The first half of the width encodes time and the second frequency, each as sines then cosines of
    position / 10000^(2k / (D/2)).
    """
    if dim % 4:
        raise ValueError(f"the width of sine-cosine positions must be a multiple of 4, but is {dim}")
    f, t = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    table = torch.cat([_sincos(t.flatten(), dim // 2), _sincos(f.flatten(), dim // 2)], dim=1)  # (F*T, D)
    return torch.cat([torch.zeros(1, dim), table.float()]).unsqueeze(0)


def line_positions(count: int, dim: int) -> Tensor:
    """Fixed 1-D sine-cosine positions (1, 1 + count, D) of patches in their order, the class token's (zeros) first."""
    return torch.cat([torch.zeros(1, dim), _sincos(torch.arange(count), dim).float()]).unsqueeze(0)


def resample_positions(
    table: Tensor, shape: tuple[int, int], new_shape: tuple[int, int], *, antialias: bool = True
) -> Tensor:
    """Positions (1, 1 + F*T, D) of another grid, bicubic between those of the patches; the class token's stays."""
    image = table[:, 1:].float().unflatten(1, shape).permute(0, 3, 1, 2)  # (1, F*T, D) -> (1, D, F, T)
    image = F.interpolate(image, size=new_shape, mode="bicubic", antialias=antialias)
    return torch.cat([table[:, :1], image.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def _sincos(positions: Tensor, dim: int) -> Tensor:
    rates = 10_000.0 ** -(torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angles = positions.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (positions, D)


def time_frames(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features by time frame: (B, F*T, D) -> (B, T, F*D). Paper: M2D-X, III-A2, eq. (4)."""
    placed: Tensor = tokens.unflatten(1, grid)  # (B, F, T, D)
    return placed.transpose(1, 2).flatten(2)


def patchify(logmel: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """The values of each patch: (B, C, M, L) -> (B, F*T, mels*frames*C), in the order of the patches."""
    b, c, m, length = logmel.shape
    p, q = patch_size
    x = logmel.reshape(b, c, m // p, p, length // q, q)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (m // p) * (length // q), p * q * c)
