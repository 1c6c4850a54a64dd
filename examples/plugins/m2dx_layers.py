"""Distillation from layer to layer as a plugin of m2dx: a task for each pair of a teacher's block and an own one.

model: {method: layered}
tasks: {early: {offline_encoder: {name: m2d_teacher, weights: starter, layer: 2}, target_frames: tokens,
                regulariser: {name: layer_match, layer: 1}, weight: 0.5}}
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

import m2dx
from m2dx.model.masking import gather_tokens, restore_order


@dataclass(frozen=True)
class LayeredOutput(m2dx.MaskedModelOutput):
    layers: tuple[Tensor, ...]  # (B, P, D) of each block of the online encoder, zeros at masked patches
    is_masked: Tensor  # (B, P)


class Layered(m2dx.M2D):
    """M2D whose output has what each block of the online encoder gives for the visible patches."""

    name = "layered"

    def forward(self, logmel: Tensor, mask: m2dx.Mask, *, with_tokens: bool = True) -> m2dx.MaskedModelOutput:
        tokens = self.online.embed(logmel)  # (B, P, D)
        layers = self.online.layers(tokens, mask.visible)  # (B, 1 + V, D) each, class token first
        prediction = gather_tokens(self.predictor(layers[-1], mask.restore), mask.masked)  # (B, P - V, D)
        target, hidden = self.encode_target(tokens, mask), torch.zeros_like(prediction)
        whole = restore_order(layers[-1][:, 1:], prediction, mask) if with_tokens else None
        in_place = tuple(restore_order(layer[:, 1:], hidden, mask) for layer in layers)
        loss = self.loss(prediction, target)
        return LayeredOutput(loss, layers[-1], prediction, target, whole, in_place, mask.is_masked)


class LayerMatch(m2dx.Regulariser):
    """L1 distance and cosine of a teacher's frames and a block's mean over the visible patches of each, mapped.

    USAD (arXiv:2506.18843) distils so. With a method other than `layered`, h-hat stands for the block.

    Options:
        layer: block of the online encoder, from 1 on
    """

    name = "layer_match"

    def __init__(self, shapes: m2dx.TaskShapes, *, layer: PositiveInt = 1) -> None:
        super().__init__(shapes)
        if shapes.target_frames != shapes.grid[1]:
            raise m2dx.RecipeError("layer_match needs a teacher of frames; set target_frames: tokens")
        self.layer, self.linear = layer, nn.Linear(shapes.embed_dim, shapes.target_dim)

    def forward(self, output: m2dx.MaskedModelOutput, target: Tensor | None) -> Tensor:
        x, seen = output.tokens, torch.ones_like(output.tokens[..., 0])
        if isinstance(output, LayeredOutput):
            if self.layer > len(output.layers) or len(output.is_masked) > len(target):
                raise m2dx.RecipeError(f"layer_match needs {self.layer} blocks, and one mask per clip")
            x, seen = output.layers[self.layer - 1], ~output.is_masked
        x, seen = (part.float().unflatten(1, self.shapes.grid) for part in (x, seen))  # (B, F, T, ...)
        mean = (x * seen[..., None]).sum(1) / seen.sum(1).clamp_min(1.0)[..., None]  # (B, T, D)
        frames = self.linear(mean)  # (B, T, C)
        apart = (frames - target).abs().mean(-1) + 1.0 - F.cosine_similarity(frames, target, dim=-1)  # (B, T)
        return (apart * (heard := seen.amax(1))).sum() / heard.sum()


@m2dx.hookimpl
def methods() -> list[type]:
    return [Layered]


@m2dx.hookimpl
def regularisers() -> list[type]:
    return [LayerMatch]
