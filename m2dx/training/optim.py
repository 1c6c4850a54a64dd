"""Builds optimizer and schedule; the rates of each step, clipping, and the moments of a resumed run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from m2dx.contract.components import Optimizer, Schedule
from m2dx.contract.errors import PluginError
from m2dx.contract.host import PluginHost
from m2dx.contract.wording import counted
from m2dx.recipe.schema import Recipe, TrainSection


def build_optimizer(
    model: nn.Module, train: TrainSection, host: PluginHost, *, learning_rate: float = 0.0
) -> Optimizer:
    """The recipe's optimizer of the weights that are trained; PluginError where it has not each of them once."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer: Optimizer = host.build(
        "optimizer",
        train.optimizer,
        named_parameters=trained,
        learning_rate=learning_rate,
        weight_decay=train.weight_decay,
        betas=train.betas,
    )
    if problem := coverage_problem(optimizer, trained):
        raise PluginError(f"train.optimizer ({host.origin('optimizer', train.optimizer.name)}): {problem}")
    return optimizer


def coverage_problem(optimizer: Optimizer, trained: Sequence[tuple[str, nn.Parameter]]) -> str | None:
    """What is wrong where the optimizer's groups have not each of the trained weights once, and no others."""
    times = Counter(id(p) for group in optimizer.param_groups for p in group["params"])
    rule = "param_groups must have each of named_parameters once"
    for name, parameter in trained:
        if (found := times.pop(id(parameter), 0)) != 1:
            return f"{rule}, but {name} is {f'there {found} times' if found else 'missing'}"
    return f"{rule}, but has {counted(len(times), 'other tensor')}, too" if times else None


def build_schedule(train: TrainSection, host: PluginHost) -> Schedule:
    """The recipe's schedule, tried at some points; PluginError where it fails or gives no share."""
    schedule: Schedule = host.build("schedule", train.schedule)
    for progress in np.linspace(0.0, 1.0, 100, endpoint=False).tolist():
        with PluginError.blaming(f"schedule {schedule.name!r}: share({progress:g}) failed"):
            share = float(schedule.share(progress))
            if not 0.0 <= share <= 1.0:
                raise PluginError(
                    f"schedule {schedule.name!r}: share must be between 0 (min_lr) and 1 (the peak), but share("
                    f"{progress:g}) is {share}"
                )
    return schedule


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
class Rates:
    """Learning rate and EMA decay of each step."""

    schedule: Schedule
    total_steps: int
    warmup_steps: float
    peak_lr: float
    min_lr: float
    ema_start: float
    ema_end: float

    @classmethod
    def of(cls, recipe: Recipe, host: PluginHost, *, total_steps: int, steps_per_epoch: int) -> Rates:
        """The rates of a recipe; the peak is its base rate times batch_size / 256."""
        train, decay = recipe.train, recipe.model.ema_decay
        return cls(
            schedule=build_schedule(train, host),
            total_steps=total_steps,
            warmup_steps=train.warmup_epochs * steps_per_epoch,
            peak_lr=train.base_lr * train.batch_size / 256,
            min_lr=train.min_lr,
            ema_start=decay.start,
            ema_end=decay.end,
        )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up from 0, then from the peak to the minimum by the schedule; steps count from 0."""
        if step < self.warmup_steps:
            return self.peak_lr * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.min_lr + (self.peak_lr - self.min_lr) * float(self.schedule.share(progress))

    def ema_decay(self, step: int) -> float:
        """Decay, linearly interpolated so that the first and last step have the recipe's values (M2D-X, IV-A)."""
        return self.ema_start + (self.ema_end - self.ema_start) * step / max(self.total_steps - 1, 1)
