"""Masks for pictures: which patches a reconstruction starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from m2dx.contract.errors import RecipeError
from m2dx.model.masking import PATTERNS, pattern_mask

RANDOM = "random"


@dataclass(frozen=True)
class PatchMask:
    """A mask by name: random at a ratio, or a pattern that masks every other patch (MSM-MAE, figure 3).

    vertical: visible and masked columns take turns along time; horizontal: rows, along frequency; chessboard: both, so
    that the four neighbours of a masked patch are visible. `seed` draws the random mask; for the patterns an odd one
    swaps visible and masked patches. At least one patch stays visible, and one masked. RecipeError for another name, a
    ratio beyond (0, 1), and a grid on which nothing takes turns.
    """

    pattern: str = RANDOM
    ratio: float = 0.75  # share of masked patches, of the random mask only
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise RecipeError(f"the pattern must be one of {', '.join(PATTERNS)}, but is {self.pattern!r}")
        if not 0.0 < self.ratio < 1.0:
            raise RecipeError(f"the mask ratio must be in (0, 1), but is {self.ratio:g}")

    def title(self, grid: tuple[int, int]) -> str:
        """What it is called in a picture; where few patches are visible, with their number."""
        if self.pattern != RANDOM:
            return self.pattern
        visible = int((~self.is_masked(grid)).sum())
        return f"mask ratio {self.ratio:g}" + (f", {visible} visible" if visible <= 10 else "")

    def is_masked(self, grid: tuple[int, int]) -> NDArray[np.bool_]:
        """(F, T), true where masked."""
        generator = torch.Generator().manual_seed(self.seed)
        mask = pattern_mask(self.pattern, grid, mask_ratio=self._ratio_on(grid), generator=generator)
        flags: NDArray[np.bool_] = mask.is_masked[0].numpy().reshape(grid)
        return ~flags if self.pattern != RANDOM and self.seed % 2 else flags

    def _ratio_on(self, grid: tuple[int, int]) -> float:
        """The ratio at which a pattern stays whole, with no patch more or less; for the random mask, its own."""
        patches, axes = grid[0] * grid[1], PATTERNS[self.pattern]
        if not axes:
            return min(max(self.ratio, 1 / patches), 1 - 1 / patches)
        lines = patches if len(axes) == 2 else grid[axes[0]]
        return (lines // 2) / lines if lines > 1 else 0.5  # which is refused
