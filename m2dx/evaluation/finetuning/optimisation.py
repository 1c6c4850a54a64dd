"""Optimizers, learning rate and loss of fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from timm.optim.lars import Lars
from torch import Tensor, nn
from torch.nn import functional as F

OptimizerName = Literal["sgd", "lars", "adamw"]
MOMENTUM = 0.9
BETAS = (0.9, 0.95)
WEIGHT_DECAY: dict[OptimizerName, float] = {"sgd": 0.0, "lars": 0.0, "adamw": 1e-4}
"""The published code's."""


def make_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], *, weight_decay: float
) -> torch.optim.Optimizer:
    """SGD and LARS with momentum 0.9, AdamW with betas 0.9 and 0.95 and AMSGrad, for the parameters with gradients.

    timm's LARS scales the step of a tensor (You et al., 2017) only where there is weight decay; without it, as
    published, it is SGD with momentum.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(trained, lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)
    if name == "lars":
        return Lars(trained, lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)
    return torch.optim.AdamW(trained, lr=0.0, betas=BETAS, weight_decay=weight_decay, amsgrad=True)


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up from 0, then half a cosine from the peak to 0; steps count from 0."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))


def classification_loss(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    """Mean over clips and classes of (binary) cross entropy, from logits and soft targets (B, C).

    With one label per clip that is 1/C of the usual cross entropy, as in the published code, which the learning rates
    of SGD in table II are for.
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets)
    return -(targets * logits.log_softmax(dim=1)).mean()
