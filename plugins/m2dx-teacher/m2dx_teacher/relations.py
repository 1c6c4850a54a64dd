"""Gram distillation: which frames, or which clips, are alike, as a frozen teacher has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import m2dx
from m2dx.model.patches import time_frames


class Gram(m2dx.Regulariser):
    """Mean squared difference of the cosines between frames, by those between the teacher's frames.

    Frames are compared with those of the same clip, or of the whole micro-batch. A teacher with one vector per clip
    relates clips, by the mean of their frames. Its width is free, and there is nothing to train (DINOv3,
    arXiv:2508.10104, section 4.2, keeps patch features that way).

    Options:
        across_clips: compare frames with those of the other clips of the micro-batch, too
        remove_mean: take the mean of all vectors from each before comparing, where all are alike
    """

    name = "gram"

    def __init__(
        self, shapes: m2dx.TaskShapes, *, across_clips: bool = False, remove_mean: bool = True
    ) -> None:
        super().__init__(shapes)
        self.across_clips, self.remove_mean = across_clips, remove_mean
        if not shapes.target_dim:
            raise m2dx.RecipeError("gram needs a teacher; add an offline_encoder to the task")
        if shapes.target_frames not in (None, shapes.grid[1]):
            raise m2dx.RecipeError(
                f"gram relates the {shapes.grid[1]} frames of the patch grid, but the teacher gives "
                f"{shapes.target_frames}; set target_frames: tokens on the task"
            )

    def cosines(self, vectors: Tensor) -> Tensor:
        vectors = vectors.float()
        if self.across_clips or vectors.ndim == 2:
            vectors = vectors.flatten(0, -2)[None]  # (B, S, C) or (B, C) -> (1, B*S, C)
        if self.remove_mean:
            vectors = vectors - vectors.mean(dim=(0, 1))
        vectors = F.normalize(vectors, dim=-1)
        with torch.autocast(vectors.device.type, enabled=False):
            return vectors @ vectors.mT

    def forward(self, output: m2dx.MaskedModelOutput, target: Tensor | None) -> Tensor:
        assert output.tokens is not None and target is not None
        frames = time_frames(output.tokens, self.shapes.grid)  # (B, F*T, D) -> (B, T, F*D)
        own = self.cosines(frames if target.ndim == 3 else frames.mean(dim=1))
        return (own - self.cosines(target)).square().mean()
