"""The core's online mappers."""

from __future__ import annotations

from torch import Tensor, nn

from m2dx.contract.components import OnlineMapper, TaskShapes
from m2dx.contract.errors import RecipeError
from m2dx.model.patches import time_frames
from m2dx.model.vit import init_linear


class LinearMapper(OnlineMapper):
    """A linear layer per time frame, for distillation: (B, F*T, D) -> (B, T, C) (M2D-X, IV-D)."""

    name = "linear"

    def __init__(self, shapes: TaskShapes) -> None:
        super().__init__(shapes)
        freq, time = shapes.grid
        if shapes.target_frames != time:
            target = (
                f"(B, {shapes.target_dim})"
                if shapes.target_frames is None
                else (f"(B, {shapes.target_frames}, {shapes.target_dim})")
            )
            hint = (
                "use pool_linear" if shapes.target_frames is None else "set target_frames: tokens on the task"
            )
            raise RecipeError(
                f"the mapper linear gives (B, {time}, {shapes.target_dim}), one vector per time frame of the patch "
                f"grid, but the offline encoder gives {target}; {hint}"
            )
        self.linear = nn.Linear(freq * shapes.embed_dim, shapes.target_dim)
        init_linear(self.linear)

    def forward(self, tokens: Tensor) -> Tensor:
        frames = time_frames(tokens, self.shapes.grid)  # (B, F*T, D) -> (B, T, F*D)
        return self.linear(frames)  # type: ignore[no-any-return]  # (B, T, C)


class PoolLinearMapper(OnlineMapper):
    """Temporal mean, then a linear layer, for labels: (B, F*T, D) -> (B, C) (M2D-X, IV-C)."""

    name = "pool_linear"

    def __init__(self, shapes: TaskShapes) -> None:
        super().__init__(shapes)
        if shapes.target_frames is not None:
            raise RecipeError(
                f"the mapper pool_linear gives (B, {shapes.target_dim}), one vector per clip, but the offline encoder "
                f"gives (B, {shapes.target_frames}, {shapes.target_dim}); use linear, with target_frames: tokens "
                "where its frames differ from the patch grid's"
            )
        self.linear = nn.Linear(shapes.grid[0] * shapes.embed_dim, shapes.target_dim)
        init_linear(self.linear)

    def forward(self, tokens: Tensor) -> Tensor:
        pooled = time_frames(tokens, self.shapes.grid).mean(dim=1)  # (B, F*T, D) -> (B, F*D)
        return self.linear(pooled)  # type: ignore[no-any-return]  # (B, C)
