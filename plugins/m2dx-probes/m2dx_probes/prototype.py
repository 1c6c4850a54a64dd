"""The prototype probe: tokens are compared with learned examples of each class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from m2dx_probes.tokens import CLIPS_AT_ONCE
from m2dx_probes.training import Mix, Run, TokenProbe

OWN = 5.0
"""Weight at the start of a prototype in the logit of its own class."""
CANDIDATES = 20
"""Tokens that each first prototype is chosen from."""
MOST_COMPARED = 512
"""Training clips of the class, and of the others, that they are compared with, at most."""


@dataclass(frozen=True, kw_only=True)
class Prototype(TokenProbe):
    """Prototypes: learned vectors of each class, the most similar token of a clip to each, and a linear layer on these.

    A clip has the largest cosine similarity of any of its tokens for each prototype, so that a short event in a long
    clip is found. Prototypes start at tokens that are common in the class and not in others. The idea is that of
    ProtoPNet (Chen et al., NeurIPS 2019), which Rauch et al. (2025, "Can Masked Autoencoders Also Listen to Birds?")
    took over to probe audio encoders; here the linear layer sees the prototypes of all classes, and nothing keeps
    prototypes apart. Seeds set the first prototypes and the order of the clips.

    Options:
        prototypes: for each class.
    """

    name = "prototype"

    lr: PositiveFloat = 1e-2
    prototypes: PositiveInt = 5

    def head(self, run: Run) -> nn.Module:
        """See `PrototypeHead`."""
        return PrototypeHead(run, self.prototypes)


class PrototypeHead(nn.Module):
    """Prototypes (C*J, D), class after class, and a linear layer on their similarities; logits start around 0."""

    def __init__(self, run: Run, count: int) -> None:
        super().__init__()
        self.mix = Mix(run.maps.shape[1])
        classes = run.num_classes
        self.prototypes = nn.Parameter(
            torch.stack(
                [start for number in range(classes) for start in _starts(run, self.mix, number, count)]
            )
        )
        self.linear = nn.Linear(classes * count, classes)
        own = torch.eye(classes).repeat_interleave(count, dim=1)  # (C, C*J)
        some = run.train[torch.randperm(len(run.train), generator=run.generator)[:CLIPS_AT_ONCE]]
        similar = _most_similar(self.mix(run.tokens(some)), self.prototypes).detach()
        self.linear.weight.data, self.linear.bias.data = OWN * own, -OWN * own @ similar.mean(0)

    def forward(self, tokens: Tensor) -> Tensor:
        similar = _most_similar(self.mix(tokens), self.prototypes)  # (B, S, K, D) -> (B, C*J)
        return self.linear(similar)  # type: ignore[no-any-return]  # (B, C)


@torch.no_grad()
def _starts(run: Run, mix: Mix, number: int, count: int) -> Tensor:
    """Tokens (J, D) of training clips of a class that other clips of it have, too, but those of other classes have not.

    Of random ones, those for whose mean similarity to the clips the class is furthest ahead of the others. Random
    vectors for a class that has no training clip, or all of them.
    """
    (_, _, tokens, width), random = run.maps.shape, run.generator
    rows = run.train[torch.randperm(len(run.train), generator=random)]
    of_class = run.y[rows] == number if run.y.ndim == 1 else run.y[rows, number] > 0
    own, others = rows[of_class], rows[~of_class]
    if not len(own) or not len(others):
        return torch.randn(count, width, generator=random)
    chosen = own[torch.randint(len(own), (CANDIDATES * count,), generator=random)]
    places = torch.randint(tokens, (len(chosen),), generator=random)
    found = torch.stack(
        [mix(run.tokens(row[None]))[0, place] for row, place in zip(chosen, places, strict=True)]
    )

    def similar(clips: Tensor) -> Tensor:
        parts = clips[:MOST_COMPARED].split(CLIPS_AT_ONCE)
        return torch.cat([_most_similar(mix(run.tokens(part)), found) for part in parts]).mean(0)

    return found[(similar(own) - similar(others)).topk(count).indices]


def _most_similar(tokens: Tensor, prototypes: Tensor) -> Tensor:
    """The largest cosine similarity of any token: (B, K, D) and (P, D) -> (B, P)."""
    return (F.normalize(tokens, dim=2) @ F.normalize(prototypes, dim=1).mT).amax(1)
