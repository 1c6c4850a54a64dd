"""The optimizer and the schedule of the papers: AdamW, and a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from m2dx.contract.components import Optimizer, Schedule


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices, which decay, and biases and norms, which do not (as MAE).

    Class and mask tokens count as matrices, as in the published code, whose rule is "one dimension or a bias".
    """
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in named:
        (rest if parameter.ndim == 1 or name.endswith(".bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


class AdamW(torch.optim.AdamW, Optimizer):
    """AdamW (M2D-X, IV-A) of all weights in one pass over the memory, by torch's fused kernel where there is one."""

    name = "adamw"

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
    ) -> None:
        groups = parameter_groups(named_parameters, weight_decay)
        devices = {parameter.device.type for group in groups for parameter in group["params"]}
        super().__init__(groups, lr=learning_rate, betas=betas, fused=devices <= {"cpu", "cuda"})


class Cosine(Schedule):
    """Half a cosine from the peak to the minimum, as MAE."""

    name = "cosine"

    def share(self, progress: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * progress))
