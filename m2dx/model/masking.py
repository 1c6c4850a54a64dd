"""Which patches are visible: the maskings of the core, the checked draw of a clip, and tokens by a mask's order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from m2dx.contract.components import Mask, Masking
from m2dx.contract.errors import PluginError, RecipeError
from m2dx.recipe.schema import Fraction


def num_visible_patches(num_patches: int, mask_ratio: float) -> int:
    """V, patches left visible: the floor of P (1 - mask_ratio), safe against binary rounding (10 x 0.1 is 1)."""
    return int(num_patches * (1.0 - mask_ratio) + 1e-6)


def random_mask(num_patches: int, generator: torch.Generator) -> Tensor:
    """A permutation (P,) of the patches; the first V of it are visible, the rest masked (M2D-X, III-A1)."""
    return torch.randperm(num_patches, generator=generator)


@dataclass(frozen=True)
class MaskDraw:
    """Draws the mask of one clip, a permutation (P,) of the patches whose first V are visible, from its generator.

    PluginError, naming the masking, where that fails or gives something else.
    """

    masking: Masking
    num_patches: int  # P
    plugin: str | None = None  # that it is from; None: the core, or not known

    def __call__(self, generator: torch.Generator) -> Tensor:
        origin = "" if self.plugin is None else f" of plugin {self.plugin!r}"
        label, patches = f"masking {self.masking.name!r}{origin}", self.num_patches
        with PluginError.blaming(f"{label}: draw(generator)"):
            ids = self.masking.draw(generator)
        found = f"{tuple(ids.shape)} {ids.dtype}" if isinstance(ids, Tensor) else type(ids).__name__
        if found != f"({patches},) {torch.int64}":
            raise PluginError(
                f"{label}: draw must give a permutation ({patches},) {torch.int64} of the patches, but gave {found}"
            )
        if not torch.equal(ids.sort().values, torch.arange(patches)):
            raise PluginError(
                f"{label}: draw must give each of the {patches} patches once, but {len(ids.unique())} different ones "
                f"between {int(ids.min())} and {int(ids.max())} came"
            )
        return ids


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, K, D) at the indices (B, K), from (B, P, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def restore_order(visible: Tensor, masked: Tensor, mask: Mask) -> Tensor:
    """Tokens (B, P, D) back in place, from visible (B, V, D) and masked ones (B, P - V, D)."""
    return gather_tokens(torch.cat([visible, masked], dim=1), mask.restore)


class RandomMasking(Masking):
    """Any patches, each as likely as any other (M2D-X, III-A1; MSM-MAE, 3)."""

    name = "random"

    def draw(self, generator: torch.Generator) -> Tensor:
        return random_mask(self.grid[0] * self.grid[1], generator)


class StructuredMasking(Masking):
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
        return _visible_first(level, generator)


class TimeRunsMasking(Masking):
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
                raise RecipeError(
                    "masking time_runs: run_seconds needs an input with time; use run_patches for images"
                )
            run_patches = max(round(run_seconds / patch_seconds), 1)
        if run_patches > grid[1]:
            raise RecipeError(
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
        return _visible_first(level, generator)


class PatternMasking(Masking):
    """Base of the patterns of MSM-MAE (figure 3), where visible and masked patches alternate: half are masked.

    In training, each clip starts with a visible or with a masked patch, at random. RecipeError for another mask ratio,
    and for a grid on which nothing alternates.
    """

    axes: ClassVar[tuple[int, ...]]  # of the grid, along which patches alternate

    def __init__(self, grid: tuple[int, int], num_visible: int) -> None:
        super().__init__(grid, num_visible)
        patches = grid[0] * grid[1]
        if num_visible != num_visible_patches(patches, 0.5):
            raise RecipeError(
                f"masking {self.name}: model.mask_ratio must be 0.5, since half of the patches alternate, but it "
                f"leaves {num_visible} of {patches} patches visible"
            )
        _check_alternates(self.name, grid, self.axes)

    def draw(self, generator: torch.Generator) -> Tensor:
        phase = int(torch.randint(2, (), generator=generator))
        return _visible_first(_alternating(self.grid, self.axes, phase), generator)


class VerticalMasking(PatternMasking):
    """Columns in turn visible and masked, along time (MSM-MAE, figure 3 A); for a mask ratio of 0.5."""

    name = "vertical"
    axes = (1,)


class HorizontalMasking(PatternMasking):
    """Rows in turn visible and masked, along frequency (MSM-MAE, figure 3 B); for a mask ratio of 0.5."""

    name = "horizontal"
    axes = (0,)


class ChessboardMasking(PatternMasking):
    """Patches in turn visible and masked along both axes (MSM-MAE, figure 3 C); for a mask ratio of 0.5."""

    name = "chessboard"
    axes = (0, 1)


PATTERNS: dict[str, tuple[int, ...]] = {
    "random": (),
    **{pattern.name: pattern.axes for pattern in (VerticalMasking, HorizontalMasking, ChessboardMasking)},
}
"""Names for `pattern_mask` -> axes of the grid along which visible and masked patches alternate."""


def pattern_mask(
    name: str, grid: tuple[int, int], *, mask_ratio: float = 0.5, generator: torch.Generator
) -> Mask:
    """The mask of one input (a batch of 1) by the name of a pattern, for pictures and for evaluation without training.

    Names are those of `PATTERNS`: random, vertical, horizontal, chessboard. Unlike the maskings of training, patterns
    start with a visible patch and take any mask ratio: above 0.5, some patches that the pattern leaves visible are
    masked at random; below, some that it masks are visible. RecipeError for an unknown name, a ratio that leaves
    nothing visible or nothing masked, and a grid on which nothing alternates.
    """
    if name not in PATTERNS:
        raise RecipeError(f"a pattern must be one of {', '.join(PATTERNS)}, but is {name!r}")
    patches = grid[0] * grid[1]
    visible = num_visible_patches(patches, mask_ratio)
    if not 0 < visible < patches:
        raise RecipeError(
            f"a mask ratio must leave at least one patch visible and one masked, but {mask_ratio} of {patches} patches "
            f"leaves {visible} visible"
        )
    axes = PATTERNS[name]
    if axes:
        _check_alternates(name, grid, axes)
        ids = _visible_first(_alternating(grid, axes, 0), generator)
    else:
        ids = random_mask(patches, generator)
    return Mask(ids[None], visible)


def _alternating(grid: tuple[int, int], axes: tuple[int, ...], phase: int) -> Tensor:
    """(F, T) float64, 0 for visible and 1 for masked patches."""
    places = [torch.arange(size) for size in grid]
    counts = torch.zeros(grid, dtype=torch.int64)
    for axis in axes:
        counts = counts + (places[0][:, None] if axis == 0 else places[1])
    return ((counts + phase) % 2).double()


def _check_alternates(name: str, grid: tuple[int, int], axes: tuple[int, ...]) -> None:
    if all(grid[axis] < 2 for axis in axes):
        what = {(0,): "rows (frequency)", (1,): "columns (time)", (0, 1): "patches"}[axes]
        raise RecipeError(
            f"masking {name}: the grid must have two {what} or more, but is {grid[0]} x {grid[1]} patches "
            "(frequency x time); take another masking or model.patch_size"
        )


def _visible_first(level: Tensor, generator: torch.Generator) -> Tensor:
    """A permutation (P,) of the patches by their level (F, T), lowest (visible) first; at random within a level.

    Levels are whole numbers. The first V of it are visible, whatever V is, so that the mask ratio is met exactly.
    """
    ties = torch.rand(level.numel(), generator=generator, dtype=torch.float64)
    return (level.flatten() + ties).argsort(stable=True)
