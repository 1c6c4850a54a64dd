"""The transformer's own modules against timm's, from which published weights come: equal bit for bit."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from timm.layers.patch_embed import PatchEmbed as TimmPatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from m2dx.model.patches import resample_positions
from m2dx.model.vit import Block, PatchEmbed


def seeded(make: partial[nn.Module]) -> tuple[nn.Module, Tensor]:
    """A module, and the state of torch's generator after its first values were drawn."""
    torch.manual_seed(5)
    return make(), torch.get_rng_state()


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def outcome(module: nn.Module, x: Tensor, *, bf16: bool) -> dict[str, Tensor]:
    """The output, and the gradients of the input and of each parameter."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = module(x)
    (output.float() * random(*output.shape)).sum().backward()
    assert x.grad is not None
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"output": output.detach(), "input": x.grad} | gradients  # type: ignore[operator]


NORM = partial(nn.LayerNorm, eps=1e-6)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("own", "timms", "x"),
    [
        (partial(Block, 192, 3), partial(TimmBlock, 192, 3, qkv_bias=True, norm_layer=NORM), (2, 21, 192)),
        (partial(Block, 768, 12), partial(TimmBlock, 768, 12, qkv_bias=True, norm_layer=NORM), (1, 191, 768)),
        (
            partial(PatchEmbed, (16, 4), in_chans=3, embed_dim=192),
            partial(TimmPatchEmbed, None, (16, 4), in_chans=3, embed_dim=192),  # type: ignore[arg-type]
            (2, 3, 80, 64),
        ),
        (
            partial(PatchEmbed, (80, 2), in_chans=1, embed_dim=768),
            partial(TimmPatchEmbed, None, (80, 2), in_chans=1, embed_dim=768),  # type: ignore[arg-type]
            (2, 1, 80, 208),
        ),
    ],
    ids=["tiny block", "base block", "patches of colours", "patches of frames"],
)
def test_first_values_outputs_and_gradients_equal_timms(
    own: partial[nn.Module], timms: partial[nn.Module], x: tuple[int, ...], bf16: bool
) -> None:
    (module, state), (expected, expected_state) = seeded(own), seeded(timms)
    torch.testing.assert_close(module.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert list(module.state_dict()) == list(expected.state_dict())
    assert torch.equal(state, expected_state)
    found, theirs = outcome(module, random(*x), bf16=bf16), outcome(expected, random(*x), bf16=bf16)
    torch.testing.assert_close(found, theirs, rtol=0, atol=0)
    module.eval(), expected.eval()
    with torch.inference_mode():
        torch.testing.assert_close(module(random(*x)), expected(random(*x)), rtol=0, atol=0)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("shape", [(5, 70), (3, 9), (8, 14), (5, 10)])
def test_resampled_positions_equal_timms(shape: tuple[int, int], antialias: bool) -> None:
    table = random(1, 1 + 5 * 14, 32)
    found = resample_positions(table, (5, 14), shape, antialias=antialias)
    expected = resample_abs_pos_embed(table, list(shape), [5, 14], antialias=antialias)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_single_column_of_patches_is_finite_in_bfloat16() -> None:
    """Whatever lies in the memory beyond it."""
    embed = PatchEmbed((16, 16), in_chans=1, embed_dim=192).to(torch.bfloat16)
    logmel = torch.randn(1, 1, 80, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(20):
            dirty = [torch.full((size,), torch.nan) for size in (100, 1000, 5000, 20_000, 100_000, 400_000)]
            del dirty
            found = embed(logmel.to(torch.bfloat16))
            assert found.shape == (1, 5, 192) and found.isfinite().all()
