"""What follows from a recipe without building a model: patch grid, sizes, mask counts, and the log-mel transform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from m2dx.contract.components import PatchGrid, ViTSize
from m2dx.contract.errors import RecipeError
from m2dx.data.logmel import LogMel
from m2dx.model.masking import num_visible_patches
from m2dx.model.vit import VIT_SIZES
from m2dx.recipe.schema import AudioSection

if TYPE_CHECKING:
    from m2dx.recipe.schema import ImageSection, ModelSection


@dataclass(frozen=True)
class ModelShapes:
    """The sizes that follow from a recipe."""

    grid: PatchGrid
    size: ViTSize
    num_visible: int  # V

    @property
    def num_masked(self) -> int:
        """P - V."""
        return self.grid.num_patches - self.num_visible


def model_shapes(source: AudioSection | ImageSection, model: ModelSection) -> ModelShapes:
    """Grid, width and mask counts for an input; RecipeError where nothing would be visible or masked."""
    if isinstance(source, AudioSection):
        grid = PatchGrid((source.n_mels, source.crop_frames), model.patch_size)
    else:
        grid = PatchGrid(source.size, model.patch_size, source.channels)
    size = VIT_SIZES[model.size]
    if model.depth is not None:
        size = replace(size, depth=model.depth)
    visible = num_visible_patches(grid.num_patches, model.mask_ratio)
    if not 0 < visible < grid.num_patches:
        raise RecipeError(
            f"model.mask_ratio must leave at least one patch visible and one masked, but {model.mask_ratio} of "
            f"{grid.num_patches} patches leaves {visible} visible"
        )
    return ModelShapes(grid, size, visible)


def build_logmel(audio: AudioSection) -> LogMel:
    """The log-mel transform of a recipe."""
    return LogMel(**audio.model_dump(exclude={"crop_seconds"}))
