"""The attentive probe: learned queries look for the tokens that tell the class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from m2dx.contract.components import ClipEncoder, EvaluationTask
from m2dx.contract.errors import RecipeError
from m2dx_probes.tokens import token_width
from m2dx_probes.training import Mix, Run, TokenProbe


@dataclass(frozen=True, kw_only=True)
class Attentive(TokenProbe):
    """Attentive pooling: learned queries attend over all tokens, a linear layer classifies what they find.

    Multi-head cross-attention: each head of a query has a share of a token's values, weighs the tokens of a clip by the
    softmax of its products with them, and gives the weighted mean of its share. A projection of keys or values would
    add nothing, as query and layer are learned alike. At its start, a query is near the mean of all tokens. Seeds set
    the initial weights and the order of the clips.

    Options:
        queries: learned queries, each as wide as a token; with more of them, the linear layer has more to learn.
        heads: of each query; they must divide the width of a token.
    """

    name = "attentive"

    queries: PositiveInt = 1
    heads: PositiveInt = 8

    def check_encoder(self, encoder: ClipEncoder, task: EvaluationTask) -> None:
        """RecipeError also where the heads do not divide the width of its tokens."""
        super().check_encoder(encoder, task)
        if (width := token_width(encoder, self.tokens)) % self.heads:
            raise RecipeError(f"`heads` must divide the width of a token, {width}, but is {self.heads}")

    def head(self, run: Run) -> nn.Module:
        """See `AttentiveHead`."""
        _, num_layers, _, width = run.maps.shape
        return AttentiveHead(num_layers, width, run.num_classes, self.queries, self.heads, run.generator)


class AttentiveHead(nn.Module):
    """Queries (Q, H, D / H) over the mixed layers, and a linear layer on what they give, (Q*D) wide."""

    def __init__(
        self,
        num_layers: int,
        width: int,
        num_classes: int,
        queries: int,
        heads: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.mix, share = Mix(num_layers), width // heads
        self.query = nn.Parameter(torch.randn(queries, heads, share, generator=generator) * share**-0.5)
        self.linear = nn.Linear(queries * width, num_classes)
        bound = (queries * width) ** -0.5  # as nn.Linear
        drawn = torch.rand(num_classes, queries * width, generator=generator) * 2 - 1
        self.linear.weight.data, self.linear.bias.data = drawn * bound, torch.zeros(num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        _, heads, share = self.query.shape
        x: Tensor = self.mix(tokens).unflatten(2, (heads, share))  # (B, S, K, D) -> (B, K, H, D / H)
        attention = torch.einsum("bkhd,qhd->bqhk", x, self.query).mul(share**-0.5).softmax(dim=3)
        found = torch.einsum("bqhk,bkhd->bqhd", attention, x)
        return self.linear(found.flatten(1))  # type: ignore[no-any-return]  # (B, Q*D) -> (B, C)
