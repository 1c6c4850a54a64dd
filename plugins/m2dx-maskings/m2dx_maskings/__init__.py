"""Maskings beside the papers' random one: bands of frequency and time, runs in time, alternating patterns."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

import m2dx
from m2dx.model.masking import num_visible_patches

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def visible_first(level: Tensor, generator: torch.Generator) -> Tensor:
    """A permutation (P,) of the patches by their level (F, T), lowest (visible) first; at random within a level.

    Levels are whole numbers. The first V of it are visible, whatever V is, so that the mask ratio is met exactly.
    """
    ties = torch.rand(level.numel(), generator=generator, dtype=torch.float64)
    return (level.flatten() + ties).argsort(stable=True)


class StructuredMasking(m2dx.Masking):
    """Bands: whole rows (frequency) and whole columns (time) of the patch grid.

    Where rows and columns do not add up to the mask ratio, one more column (or row) is masked in part.

    Options:
        frequency_share: share of the masked patches that is masked by whole rows, on average; the rest is masked by
            columns. With 0 there are columns only, with 1 rows only
    """

    name = "structured"

    def __init__(self, grid: tuple[int, int], num_visible: int, *, frequency_share: Fraction = 0.5) -> None:
        super().__init__(grid, num_visible)
        self.frequency_share = frequency_share

    def draw(self, generator: torch.Generator) -> Tensor:
        freq, time = self.grid
        masked = freq * time - self.num_visible
        row_order = torch.randperm(freq, generator=generator)
        column_order = torch.randperm(time, generator=generator)
        wanted = self.frequency_share * masked / time
        rows = min(int(wanted + torch.rand((), generator=generator)), masked // time)
        columns = (masked - rows * time) // (freq - rows) if self.frequency_share < 1 else 0
        level = torch.zeros(freq, time, dtype=torch.float64)  # higher: masked earlier
        if self.frequency_share < 1:
            level[:, column_order[columns]] = 1.0
        else:
            level[row_order[rows]] = 1.0
        level[:, column_order[:columns]] = 2.0
        level[row_order[:rows]] = 2.0
        return visible_first(level, generator)


class TimeRunsMasking(m2dx.Masking):
    """Runs in time: spans of consecutive columns with all their frequencies, as wav2vec 2.0 masks frames.

    Runs start anywhere and may overlap; at the ends of the clip they are cut. The last one, too, and its last column is
    masked in part, so that the mask ratio is met exactly.

    Options:
        run_patches: length of a run, in patches
        run_seconds: length of a run in seconds, instead of `run_patches`; rounded to patches, one at least
    """

    name = "time_runs"

    def __init__(
        self,
        grid: tuple[int, int],
        num_visible: int,
        patch_seconds: float | None,
        *,
        run_patches: PositiveInt = 4,
        run_seconds: PositiveFloat | None = None,
    ) -> None:
        super().__init__(grid, num_visible)
        if run_seconds is not None:
            if patch_seconds is None:
                raise m2dx.RecipeError(
                    "masking time_runs: run_seconds needs an input with time; use run_patches for images"
                )
            run_patches = max(round(run_seconds / patch_seconds), 1)
        if run_patches > grid[1]:
            raise m2dx.RecipeError(
                f"masking time_runs: a run must be no longer than the input of {grid[1]} patches, but is "
                f"{run_patches}; set run_patches"
            )
        self.run_patches = run_patches

    def draw(self, generator: torch.Generator) -> Tensor:
        freq, time = self.grid
        # As many starts before the clip as a run is long, so that each column is in as many runs as any other.
        starts = torch.randperm(time + self.run_patches - 1, generator=generator) - (self.run_patches - 1)
        columns = (starts[:, None] + torch.arange(self.run_patches)).flatten().tolist()
        order = list(dict.fromkeys(column for column in columns if 0 <= column < time))
        level = torch.empty(freq, time, dtype=torch.float64)
        level[:, order] = torch.arange(time, 0, -1, dtype=torch.float64)
        return visible_first(level, generator)


PATTERNS: dict[str, tuple[int, ...]] = {
    "random": (),
    "vertical": (1,),
    "horizontal": (0,),
    "chessboard": (0, 1),
}
"""Names of masks -> axes of the grid along which visible and masked patches alternate (MSM-MAE, figure 3)."""


def alternating(name: str, grid: tuple[int, int], *, phase: int = 0) -> Tensor:
    """(F, T), true for the masked patches of one of `PATTERNS`; the first patch is visible, with an odd phase masked.

    RecipeError for a grid on which nothing alternates.
    """
    axes = PATTERNS[name]
    if all(grid[axis] < 2 for axis in axes):
        what = {(0,): "rows (frequency)", (1,): "columns (time)", (0, 1): "patches"}[axes]
        raise m2dx.RecipeError(
            f"masking {name}: the grid must have two {what} or more, but is {grid[0]} x {grid[1]} patches "
            "(frequency x time); take another masking or model.patch_size"
        )
    places = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    return (torch.stack([places[axis] for axis in axes]).sum(dim=0) + phase) % 2 == 1


class PatternMasking(m2dx.Masking):
    """Base of the patterns of MSM-MAE (figure 3), where visible and masked patches alternate: half are masked.

    In training, each clip starts with a visible or with a masked patch, at random. RecipeError for another mask ratio,
    and for a grid on which nothing alternates.
    """

    def __init__(self, grid: tuple[int, int], num_visible: int) -> None:
        super().__init__(grid, num_visible)
        patches = grid[0] * grid[1]
        if num_visible != num_visible_patches(patches, 0.5):
            raise m2dx.RecipeError(
                f"masking {self.name}: model.mask_ratio must be 0.5, since half of the patches alternate, but it "
                f"leaves {num_visible} of {patches} patches visible"
            )
        alternating(self.name, grid)

    def draw(self, generator: torch.Generator) -> Tensor:
        phase = int(torch.randint(2, (), generator=generator))
        return visible_first(alternating(self.name, self.grid, phase=phase), generator)


class VerticalMasking(PatternMasking):
    """Columns in turn visible and masked, along time (MSM-MAE, figure 3 A); for a mask ratio of 0.5."""

    name = "vertical"


class HorizontalMasking(PatternMasking):
    """Rows in turn visible and masked, along frequency (MSM-MAE, figure 3 B); for a mask ratio of 0.5."""

    name = "horizontal"


class ChessboardMasking(PatternMasking):
    """Patches in turn visible and masked along both axes (MSM-MAE, figure 3 C); for a mask ratio of 0.5."""

    name = "chessboard"


@m2dx.hookimpl
def maskings() -> list[type]:
    return [
        StructuredMasking,
        TimeRunsMasking,
        VerticalMasking,
        HorizontalMasking,
        ChessboardMasking,
    ]
