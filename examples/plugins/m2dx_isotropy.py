"""A regulariser against collapse as a plugin of m2dx: tasks: {normal: {regulariser: {name: sigreg}, weight: 0.1}}."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

import m2dx
from m2dx.model.regularisers import clip_vectors


class SIGReg(m2dx.Regulariser):
    """How far clip vectors are from a standard normal distribution (LeJEPA, Balestriero and LeCun, arXiv:2511.08544).

    Along random directions, new ones in each step, the Epps-Pulley statistic compares characteristic functions.

    Options:
        directions: random directions
        points: between -4 and 4, at which characteristic functions are compared
    """

    name = "sigreg"
    needs_tokens = False

    def __init__(
        self, shapes: m2dx.TaskShapes, *, directions: PositiveInt = 256, points: PositiveInt = 17
    ) -> None:
        super().__init__(shapes)
        self.directions = directions
        self.register_buffer("points", torch.linspace(-4.0, 4.0, points), persistent=False)

    def forward(self, output: m2dx.MaskedModelOutput, target: Tensor | None) -> Tensor:
        x = clip_vectors(output)
        # On the CPU, by torch's own generator, whose state checkpoints have; outside of training always the same.
        generator = None if self.training else torch.Generator().manual_seed(0)
        directions = torch.randn(x.shape[1], self.directions, generator=generator).to(x.device)
        with torch.autocast(x.device.type, enabled=False):
            angles = (x @ F.normalize(directions, dim=0))[..., None] * self.points  # (B, directions, points)
            normal = (-self.points.square() / 2).exp()
            distance = (angles.cos().mean(0) - normal).square() + angles.sin().mean(0).square()
            return len(x) * torch.trapezoid(distance * normal, self.points, dim=-1).mean()


@m2dx.hookimpl
def regularisers() -> list[type]:
    return [SIGReg]
