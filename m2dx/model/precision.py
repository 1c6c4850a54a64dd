"""The arithmetic of the forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from m2dx.contract.errors import RecipeError
from m2dx.model.cpu_kernels import CPUKernels

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
    kernels = CPUKernels() if device.type == "cpu" and not compiled else nullcontext()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None), kernels:
        yield
