"""Parameter groups and the schedules of learning rate and moving average."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from m2dx.recipe.schema import Recipe


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices, which decay, and biases and norms, which do not (as MAE).

    Class and mask tokens count as matrices, as in the published code, whose rule is "one dimension or a bias".
    Frozen parameters are left out.
    """
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in named:
        if parameter.requires_grad:
            (rest if parameter.ndim == 1 or name.endswith(".bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def load_moments(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads an optimizer's state, but keeps its own options, such as a weight decay that the recipe has changed."""
    options = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)


@dataclass(frozen=True)
class Schedule:
    """Learning rate and EMA decay of each step."""

    total_steps: int
    warmup_steps: float
    peak_lr: float
    min_lr: float
    ema_start: float
    ema_end: float

    @classmethod
    def of(cls, recipe: Recipe, *, total_steps: int, steps_per_epoch: int) -> Schedule:
        """The schedule of a recipe; the peak is its base rate times batch_size / 256."""
        train, decay = recipe.train, recipe.model.ema_decay
        return cls(
            total_steps=total_steps,
            warmup_steps=train.warmup_epochs * steps_per_epoch,
            peak_lr=train.base_lr * train.batch_size / 256,
            min_lr=train.min_lr,
            ema_start=decay.start,
            ema_end=decay.end,
        )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up from 0, then half a cosine from the peak to the minimum, as MAE; steps count from 0."""
        if step < self.warmup_steps:
            return self.peak_lr * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.min_lr + (self.peak_lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))

    def ema_decay(self, step: int) -> float:
        """Decay, linearly interpolated so that the first and last step have the recipe's values (M2D-X, IV-A)."""
        return self.ema_start + (self.ema_end - self.ema_start) * step / max(self.total_steps - 1, 1)
