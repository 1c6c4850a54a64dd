"""Dispersion-weighted masking (Niizumi et al., 2026, arXiv:2603.23810), as a plugin of m2dx.

model: {masking: {name: dispersion, reveal_from: 0.0, reveal_to: 0.5}}
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import m2dx
from m2dx.model.patches import patchify

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
LEAST = 1e-6  # dispersion, so that patches of silence can be masked, too


class Dispersion(m2dx.Masking):
    """Patches whose log-mel varies are masked more often: in proportion to their mean absolute deviation.

    A share of the masked patches is revealed, and as many are masked at random instead. The share follows a straight
    line from the first step to the last.

    Options:
        reveal_from: that share at the first step
        reveal_to: that share at the last step
    """

    name = "dispersion"

    def __init__(
        self,
        grid: tuple[int, int],
        num_visible: int,
        *,
        reveal_from: Fraction = 0.0,
        reveal_to: Fraction = 0.5,
    ) -> None:
        super().__init__(grid, num_visible)
        self.reveal_from, self.reveal_to = reveal_from, reveal_to

    def draw(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.grid[0] * self.grid[1], generator=generator)

    def look(self, ids: Tensor, logmel: Tensor, *, progress: float, seeds: Tensor) -> Tensor:
        (freq, time), patches = self.grid, ids.shape[1]
        values = patchify(
            logmel.float(), (logmel.shape[-2] // freq, logmel.shape[-1] // time)
        )  # (B, P, values)
        dispersion = (values - values.mean(-1, keepdim=True)).abs().mean(-1)  # (B, P)
        # The order of arrival of exponential clocks is a weighted draw without replacement.
        arrivals = -torch.log1p(-m2dx.seeded_uniform(seeds, patches)) / dispersion.clamp_min(LEAST)
        drawn = arrivals.argsort(dim=1, stable=True)  # (B, P), the first P - V are masked
        masked, visible = drawn[:, : patches - self.num_visible], drawn[:, patches - self.num_visible :]
        share = self.reveal_from + (self.reveal_to - self.reveal_from) * progress
        revealed = round(share * masked.shape[1])
        masked = masked.gather(1, m2dx.seeded_uniform(seeds, masked.shape[1], use=1).argsort(dim=1))
        pool = torch.cat([visible, masked[:, :revealed]], dim=1)
        pool = pool.gather(1, ids.argsort(dim=1).gather(1, pool).argsort(dim=1))  # in the order of `draw`
        return torch.cat([pool, masked[:, revealed:]], dim=1)  # the first V are visible


@m2dx.hookimpl
def maskings() -> list[type]:
    return [Dispersion]
