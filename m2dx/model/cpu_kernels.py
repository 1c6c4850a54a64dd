"""The faster ones of torch's kernels for a CPU, where torch itself takes others. docs/performance.md has the gain."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.overrides import TorchFunctionMode

_LEAST_PRODUCTS = 4_000_000
"""Multiply-adds of a linear layer from which oneDNN's gain is more than the cost of calling it from Python."""


class CPUKernels(TorchFunctionMode):
    """While entered, forward passes on the CPU take faster kernels; what they compute stays, up to rounding.

    - Linear layers in float32 are oneDNN's, backward too. Torch takes MKL's, which use AVX-512 on Intel's processors
      only; on others the rest of the vector width lies idle. On Intel's, this changes nothing.
    - Attention under bfloat16 autocast is computed in float32, which costs little: torch's backward pass of it in
      bfloat16 takes several times as long. Processors with AMX keep torch's, since they have not been measured.
    """

    def __init__(self, *, linear: bool | None = None, attention: bool | None = None) -> None:
        """Both default to whether the processor gains from it."""
        super().__init__()
        self.linear = _gains_from_onednn() if linear is None else linear
        self.attention = not torch.cpu._is_amx_tile_supported() if attention is None else attention

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and self.linear:
            return linear(*args, **kwargs)
        if func is F.scaled_dot_product_attention and self.attention:
            return attention(*args, **kwargs)
        return func(*args, **kwargs)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, by oneDNN where it takes float32 tensors on the CPU and is worth the call."""
    tensors = (input, weight) if bias is None else (input, weight, bias)
    if (
        torch.is_autocast_enabled("cpu")
        or any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors)
        or input.numel() * len(weight) < _LEAST_PRODUCTS
    ):
        return F.linear(input, weight, bias)
    rows: Tensor = _Linear.apply(input.reshape(-1, input.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return rows.view(*input.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """A linear layer of rows (n, in) by oneDNN, forward and backward."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if of_rows else None,  # (n, out) x (out, in)
            _product(grad.t(), rows.t()) if of_weight else None,  # (out, n) x (n, in)
            grad.sum(dim=0) if of_bias else None,
        )


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows (n, in) times weight (out, in) transposed, plus bias (out,): (n, out)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *options: Any, **named: Any
) -> Tensor:
    """`F.scaled_dot_product_attention` (with its options), in float32 where a CPU's autocast would take bfloat16."""
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(query, key, value, attn_mask, *options, **named)
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.float()
    with torch.autocast("cpu", enabled=False):
        floats = query.float(), key.float(), value.float()
        mixed = F.scaled_dot_product_attention(*floats, attn_mask, *options, **named)
    return mixed.to(torch.get_autocast_dtype("cpu"))


@lru_cache(maxsize=1)
def _gains_from_onednn() -> bool:
    """Whether this processor has AVX-512 that MKL leaves unused: one that is not Intel's."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "AuthenticAMD" in processor_text()
    )


def processor_text() -> str:
    """What the system tells of the processor, its vendor among that."""
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8", errors="replace") if info.exists() else platform.processor()
