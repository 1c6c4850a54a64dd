"""Aggregation of a clip as a plugin of m2dx: learned queries choose the patches that a label is told from.

tasks: {labels: {offline_encoder: labels, online_mapper: {name: attention_pool, heads: 4}, loss: bce}}
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

import m2dx
from m2dx.model.vit import init_linear


class AttentionPool(m2dx.OnlineMapper):
    """Attention pooling: each head weighs the patches of a clip by itself, (B, F*T, D) -> (B, C).

    At the start the weights are nearly even, so that the training starts from the mean of all patches.

    Options:
        heads: shares of a patch's features that are weighed by themselves; they must divide the width
    """

    name = "attention_pool"

    def __init__(self, shapes: m2dx.TaskShapes, *, heads: PositiveInt = 4) -> None:
        super().__init__(shapes)
        if shapes.target_frames is not None:
            raise m2dx.RecipeError(
                "the mapper attention_pool gives one vector per clip; use linear for frames"
            )
        if shapes.embed_dim % heads:
            raise m2dx.RecipeError(
                f"the mapper attention_pool: heads must divide the width {shapes.embed_dim}, but are {heads}"
            )
        self.norm = nn.LayerNorm(shapes.embed_dim)
        self.query = nn.Parameter(torch.empty(heads, shapes.embed_dim // heads))
        self.linear = nn.Linear(shapes.embed_dim, shapes.target_dim)
        nn.init.normal_(self.query, std=0.02)
        init_linear(self.linear)

    def forward(self, tokens: Tensor) -> Tensor:
        shares = self.norm(tokens).unflatten(2, self.query.shape)  # (B, F*T, D) -> (B, F*T, H, D / H)
        scores = (shares * self.query).sum(-1) * self.query.shape[1] ** -0.5  # (B, F*T, H)
        pooled = (scores.softmax(dim=1)[..., None] * shares).sum(1)  # (B, H, D / H)
        return self.linear(pooled.flatten(1))


@m2dx.hookimpl
def online_mappers() -> list[type]:
    return [AttentionPool]
