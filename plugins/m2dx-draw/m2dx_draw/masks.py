"""Masks for pictures: which patches a reconstruction starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from m2dx_maskings import PATTERNS, alternating
from numpy.typing import NDArray

from m2dx.contract.components import Mask
from m2dx.contract.errors import RecipeError
from m2dx.model.masking import num_visible_patches

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
        if self.pattern != RANDOM:
            return alternating(self.pattern, grid, phase=self.seed % 2).numpy()
        patches = grid[0] * grid[1]
        if patches < 2:
            raise RecipeError("a mask must leave one of two patches or more visible, but the grid has one")
        visible = min(max(num_visible_patches(patches, self.ratio), 1), patches - 1)
        ids = torch.randperm(patches, generator=torch.Generator().manual_seed(self.seed))
        flags: NDArray[np.bool_] = Mask(ids[None], visible).is_masked.numpy().reshape(grid)
        return flags
