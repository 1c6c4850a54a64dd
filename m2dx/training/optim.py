"""Parameter groups and the schedules of learning rate and moving average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

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


def fused_adamw(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    weight_decay: float,
    learning_rate: float,
    betas: tuple[float, float],
) -> AdamW:
    """AdamW of all trained parameters in one pass over the memory, by torch's fused kernel where the device has one."""
    groups = parameter_groups(named, weight_decay)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return AdamW(groups, lr=learning_rate, betas=betas, fused=devices <= {"cpu", "cuda"})


def load_moments(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads an optimizer's state, but keeps its own options, such as a weight decay that the recipe has changed.

    The own options are there while it loads: on a GPU the fused kernel wants the count of steps on the device, also
    from a checkpoint of an optimizer that was not fused.
    """
    saved, own = state["param_groups"], optimizer.param_groups
    if len(saved) == len(own):
        groups = [{**group, "params": old["params"]} for group, old in zip(own, saved, strict=True)]
        state = {**state, "param_groups": groups}
    optimizer.load_state_dict(state)


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> Tensor:
    """The norm of all gradients, before they are scaled down to `clip_norm` where it is above that; None: never.

    A CPU reads the norm and leaves gradients as they are where there is nothing to scale; a GPU, which would have to
    be waited for, multiplies by 1.
    """
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):  # each process knows that of its shards
        norm = norm.full_tensor()
    if clip_norm is not None and not (norm.device.type == "cpu" and norm.item() + 1e-6 <= clip_norm):
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm


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
