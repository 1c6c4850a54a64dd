"""The core's online mappers."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
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
            frames, hint = "", "use pool_linear"
            if shapes.target_frames is not None:
                frames, hint = f"{shapes.target_frames}, ", "set target_frames: tokens on the task"
            raise RecipeError(
                f"the mapper linear gives (B, {time}, {shapes.target_dim}), one vector per time frame of the patch "
                f"grid, but the offline encoder gives (B, {frames}{shapes.target_dim}); {hint}"
            )
        self.linear = nn.Linear(freq * shapes.embed_dim, shapes.target_dim)
        init_linear(self.linear)

    def forward(self, tokens: Tensor) -> Tensor:
        frames = time_frames(tokens, self.shapes.grid)  # (B, F*T, D) -> (B, T, F*D)
        return self.linear(frames)  # type: ignore[no-any-return]  # (B, T, C)


class PoolLinearMapper(OnlineMapper):
    """Statistics over time, then a linear layer, for labels: (B, F*T, D) -> (B, C) (M2D-X, IV-C).

    Options:
        pooling: `mean` over time, as published; `mean_deviation` adds the standard deviation over time, and
            normalises both (layer norm), so that the loss asks for what the default probe reads
        bottleneck: values between the pooled features and the output, for thousands of classes; none by default
    """

    name = "pool_linear"

    def __init__(
        self,
        shapes: TaskShapes,
        *,
        pooling: Literal["mean", "mean_deviation"] = "mean",
        bottleneck: Annotated[int, Field(gt=0)] | None = None,
    ) -> None:
        super().__init__(shapes)
        if shapes.target_frames is not None:
            raise RecipeError(
                f"the mapper pool_linear gives (B, {shapes.target_dim}), one vector per clip, but the offline encoder "
                f"gives (B, {shapes.target_frames}, {shapes.target_dim}); use linear, with target_frames: tokens "
                "where its frames differ from the patch grid's"
            )
        width = shapes.grid[0] * shapes.embed_dim
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)]) if pooling != "mean" else None
        width *= 1 if self.norms is None else 2
        self.narrow = None if bottleneck is None else nn.Linear(width, bottleneck)
        self.linear = nn.Linear(bottleneck or width, shapes.target_dim)
        self.apply(init_linear)

    def forward(self, tokens: Tensor) -> Tensor:
        frames = time_frames(tokens, self.shapes.grid)  # (B, F*T, D) -> (B, T, F*D)
        pooled = frames.mean(dim=1)
        if self.norms is not None:
            spread = (frames.float().var(dim=1, correction=0) + 1e-4).sqrt().to(pooled.dtype)
            first, second = self.norms
            pooled = torch.cat([first(pooled), second(spread)], dim=1)
        if self.narrow is not None:
            pooled = self.narrow(pooled)
        return self.linear(pooled)  # type: ignore[no-any-return]  # (B, C)
