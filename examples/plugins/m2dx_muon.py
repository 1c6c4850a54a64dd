"""Muon for matrices and AdamW for the rest, and a constant learning rate with decay at the end, as a plugin of m2dx.

train: {optimizer: {name: muon, momentum: 0.95}, schedule: {name: late_decay, decay_share: 0.2}}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import nn

import m2dx
from m2dx.training.optimizers import parameter_groups

OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class Muon(m2dx.Optimizer):
    """Muon for the matrices of transformer blocks, AdamW for all other weights (Liu et al., arXiv:2502.16982).

    Muon's steps are scaled to the size of AdamW's, so that both take the rates of the recipe.

    Options:
        momentum: of Muon
        newton_steps: Newton-Schulz iterations that orthogonalise a step
    """

    name = "muon"

    def __init__(
        self,
        named_parameters: Sequence[tuple[str, nn.Parameter]],
        weight_decay: float,
        betas: tuple[float, float],
        *,
        momentum: OpenFraction = 0.95,
        newton_steps: PositiveInt = 5,
    ) -> None:
        matrices = {name: p for name, p in named_parameters if ".blocks." in name and p.ndim == 2}
        rest = [(name, p) for name, p in named_parameters if name not in matrices]
        options = {"momentum": momentum, "ns_steps": newton_steps, "adjust_lr_fn": "match_rms_adamw"}
        muon = torch.optim.Muon(matrices.values(), weight_decay=weight_decay, **options)
        adamw = torch.optim.AdamW(parameter_groups(rest, weight_decay), betas=betas)
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self.muon, self.adamw = muon, adamw

    def step(self, closure: Any = None) -> None:
        groups = self.param_groups
        for part, own in ((self.muon, groups[:1]), (self.adamw, groups[1:])):
            part.state, part.param_groups = self.state, own  # loading a checkpoint has replaced them
            part.step()


class LateDecay(m2dx.Schedule):
    """The peak, then a straight line to the minimum (Hägele et al., arXiv:2405.18392).

    Options:
        decay_share: share of the steps after the warm-up that the line takes
    """

    name = "late_decay"

    def __init__(self, *, decay_share: OpenFraction = 0.2) -> None:
        self.decay_share = decay_share

    def share(self, progress: float) -> float:
        return min((1.0 - progress) / self.decay_share, 1.0)


@m2dx.hookimpl
def optimizers() -> list[type]:
    return [Muon]


@m2dx.hookimpl
def schedules() -> list[type]:
    return [LateDecay]
