"""How the forward pass is computed: its arithmetic, and what is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from m2dx.contract.errors import RecipeError
from m2dx.model.cpu_kernels import CPUKernels
from m2dx.model.m2d import M2D
from m2dx.model.mae import MSMMAE

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str, device: torch.device) -> None:
    """RecipeError where the device cannot train in a recipe's `train.precision`."""
    if precision == "fp16" and device.type != "cuda":
        raise RecipeError(f"train.precision fp16 needs a GPU, but the device is {device}; take bf16 or fp32")


@contextmanager
def autocast(precision: str, device: torch.device, *, compiled: bool = False) -> Iterator[None]:
    """The context of a forward pass in a recipe's `train.precision`, on a CPU with the faster kernels.

    `compiled`: torch.compile chooses the kernels.
    """
    dtype = _DTYPES.get(precision)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        if device.type == "cpu" and not compiled:
            with CPUKernels():
                yield
        else:
            yield


def compile_parts(masked_model: M2D | MSMMAE) -> None:
    """Has torch.compile take the transformers of M2D or MSM-MAE, in place."""
    parts: list[nn.Module] = [masked_model.online.trunk, masked_model.predictor.trunk]
    if isinstance(masked_model, M2D):
        parts.append(masked_model.target)
    for part in parts:
        part.compile()
