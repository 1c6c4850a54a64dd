"""The arithmetic of the forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from m2dx.contract.errors import RecipeError
from m2dx.model.cpu_kernels import CPUKernels

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 itself; where it does not, torch does so many times slower than in fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(
        found for name, found in torch.cpu.get_capabilities().items() if name.endswith("bf16")
    )


def choose_precision(precision: str, device: torch.device) -> str:
    """A recipe's `train.precision`, with fp32 or bf16 for auto. RecipeError where the device cannot train in it."""
    if precision == "fp16" and device.type != "cuda":
        raise RecipeError(f"train.precision fp16 needs a GPU, but the device is {device}; take bf16 or fp32")
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return precision


@contextmanager
def autocast(precision: str, device: torch.device, *, compiled: bool = False) -> Iterator[None]:
    """The context of a forward pass in a recipe's `train.precision`, on a CPU with the faster kernels.

    `compiled`: torch.compile chooses the kernels.
    """
    dtype = _DTYPES.get(precision)
    kernels = CPUKernels() if device.type == "cpu" and not compiled else nullcontext()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None), kernels:
        yield
