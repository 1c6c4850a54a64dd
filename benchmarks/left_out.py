"""The measures that make m2dx's step fast, each as a context in which a trainer does without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn

from m2dx.model import precision
from m2dx.model.cpu_kernels import CPUKernels
from m2dx.model.m2d import M2D
from m2dx.training.trainer import Trainer


@contextmanager
def without_fused_adamw(trainer: Trainer) -> Iterator[None]:
    """AdamW as torch has it by default: a loop on a CPU, several kernels per operation on a GPU."""
    groups = trainer.optimizer.param_groups
    for group in groups:
        group["fused"] = False
    yield
    for group in groups:
        group["fused"] = True


@contextmanager
def without_one_ema_update(trainer: Trainer) -> Iterator[None]:
    """The moving average a parameter at a time."""
    model = trainer.model.masked_model
    assert isinstance(model, M2D)

    @torch.no_grad()
    def update(decay: float) -> None:
        for target, online in model.target_pairs():
            target.mul_(decay).add_(online, alpha=1.0 - decay)

    with patch.object(model, "update_target", update):
        yield


@contextmanager
def without_clipping_on_demand(trainer: Trainer) -> Iterator[None]:
    """Gradients multiplied by the clipping factor at every step, also where it is 1."""

    def clip(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, float("inf") if clip_norm is None else clip_norm)

    with patch("m2dx.training.trainer.clip_gradients", clip):
        yield


@contextmanager
def without_last_layer_of_masked(trainer: Trainer) -> Iterator[None]:
    """The predictor's last layer on all patches, then the masked ones of its output."""
    model = trainer.model.masked_model
    assert isinstance(model, M2D)
    layer, features = model.predictor.pred, model.predictor.features
    model.predictor.pred = nn.Identity()  # type: ignore[assignment]
    try:
        with patch.object(model.predictor, "features", lambda *inputs: layer(features(*inputs))):
            yield
    finally:
        model.predictor.pred = layer


@contextmanager
def without_cpu_kernels(trainer: Trainer, **options: bool) -> Iterator[None]:
    """Torch's own kernels for linear layers or for attention."""
    with patch.object(precision, "CPUKernels", partial(CPUKernels, **options)):
        yield


MEASURES: dict[str, Callable[[Trainer], AbstractContextManager[None]]] = {
    "fused_adamw": without_fused_adamw,
    "one_ema_update": without_one_ema_update,
    "clipping_on_demand": without_clipping_on_demand,
    "last_layer_of_masked": without_last_layer_of_masked,
    "onednn_linear": partial(without_cpu_kernels, linear=False),
    "float32_attention": partial(without_cpu_kernels, attention=False),
}
"""Names of the measures, as benchmarks/README.md explains them."""
