"""The faster kernels compute what torch's own do, and are taken where they should be."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from m2dx.encoder.published import MODEL_NAMES, rename
from m2dx.model import cpu_kernels
from m2dx.model.cpu_kernels import CPUKernels
from m2dx.model.m2d import M2D
from m2dx.model.precision import autocast

CPU = torch.device("cpu")
LARGE = (2, 100, 200, 120)  # clips, tokens, in, out: above the size from which oneDNN is taken


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights that oneDNN has multiplied with."""
    seen, product = [], cpu_kernels._product

    def noted(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append(tuple(weight.shape))
        return product(rows, weight, bias)

    monkeypatch.setattr(cpu_kernels, "_product", noted)
    return seen


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_linear_layer_and_its_gradients(
    products: list[tuple[int, ...]], *, with_bias: bool, transposed: bool
) -> None:
    b, k, width, out = LARGE
    first = (k, b, width) if transposed else (b, k, width)
    inputs, weight, bias, grad = tensors(first, (out, width), (out,), (b, k, out))
    x = inputs.transpose(0, 1) if transposed else inputs
    leaves = [inputs, weight, *([bias] if with_bias else [])]
    arguments = (x, weight, bias if with_bias else None)
    expected = F.linear(*arguments)
    with CPUKernels(linear=True):
        actual = F.linear(*arguments)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)
    for mine, its in zip(
        torch.autograd.grad(actual, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-4)
    assert len(products) == 3  # forward, and the gradients of input and weight


def test_a_frozen_layer_costs_no_gradient_of_its_weight(products: list[tuple[int, ...]]) -> None:
    b, k, width, out = LARGE
    x, weight = tensors((b, k, width), (out, width))
    with CPUKernels(linear=True):
        F.linear(x, weight.detach()).sum().backward()
    assert products == [(out, width), (width, out)]
    assert x.grad is not None


def test_small_layers_and_other_numbers_stay_torchs(products: list[tuple[int, ...]]) -> None:
    b, k, width, out = LARGE
    x, weight = tensors((b, k, width), (out, width))
    expected = F.linear(x[0], weight)
    with CPUKernels(linear=True):
        assert torch.equal(F.linear(x[0], weight), expected)
        assert F.linear(x.double(), weight.double()).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert F.linear(x, weight).dtype == torch.bfloat16
        assert F.linear(torch.empty(0, width), weight).shape == (0, out)
    assert products == []


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_bf16_is_that_in_float32(*, masked: bool) -> None:
    q, k, v, grad = tensors(*[(2, 3, 10, 8)] * 4)
    mask = torch.zeros(10, 10).masked_fill(torch.eye(10) == 1, -1e9) if masked else None
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    with autocast("bf16", CPU):
        actual = F.scaled_dot_product_attention(q, k, v, None if mask is None else mask.bfloat16())
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, rtol=0, atol=2e-2)
    for mine, its in zip(
        torch.autograd.grad(actual, (q, k, v), grad.bfloat16()),
        torch.autograd.grad(expected, (q, k, v), grad),
        strict=True,
    ):
        torch.testing.assert_close(mine, its, rtol=0, atol=5e-2)


def test_attention_in_float32_stays_torchs() -> None:
    q, k, v = tensors(*[(2, 3, 10, 8)] * 3)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.1)
    with autocast("fp32", CPU):
        assert torch.equal(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.1), expected)


def test_published_numbers_by_onednn(
    parity: Any, products: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_kernels, "_LEAST_PRODUCTS", 0)
    monkeypatch.setattr(cpu_kernels, "_gains_from_onednn", lambda: True)
    model = M2D(parity.grid, parity.size, parity.predictor)
    model.load_state_dict(rename(parity.weights("m2d_weights"), MODEL_NAMES))
    with autocast("fp32", CPU):
        output = model(parity.tensors["x"], parity.mask)
    output.loss.backward()
    assert len(products) > 20
    assert output.loss.item() == pytest.approx(parity.tensors["m2d_loss"].item(), abs=1e-6)
    gradient = model.online.patch_embed.proj.weight.grad
    assert gradient is not None
    torch.testing.assert_close(gradient, parity.tensors["m2d_grad_patch_embed"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("capability", "processor", "gains"),
    [
        ("AVX512", "vendor_id\t: AuthenticAMD", True),
        ("AVX512", "vendor_id\t: GenuineIntel", False),  # MKL takes AVX-512 there
        ("AVX2", "vendor_id\t: AuthenticAMD", False),
    ],
)
def test_onednn_is_for_processors_whose_avx512_mkl_leaves_unused(
    monkeypatch: pytest.MonkeyPatch, *, capability: str, processor: str, gains: bool
) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(cpu_kernels, "processor_text", lambda: processor)
    assert cpu_kernels._gains_from_onednn.__wrapped__() is gains


def test_kernels_are_torchs_again_after_an_error(products: list[tuple[int, ...]]) -> None:
    b, k, width, out = LARGE
    x, weight = tensors((b, k, width), (out, width))
    with pytest.raises(RuntimeError, match="of the forward pass"), CPUKernels(linear=True):
        raise RuntimeError("of the forward pass")
    F.linear(x, weight)
    assert products == []
