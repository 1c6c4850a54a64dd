"""Masks partition the patches."""

import pytest
import torch

from m2dx.contract.components import Mask
from m2dx.model.masking import RandomMasking, gather_tokens, num_visible_patches, restore_order


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"),
    [(10, 0.9, 1), (10, 0.1, 9), (190, 0.7, 57), (35, 0.7, 10), (15, 0.6, 6), (100, 0.99, 1), (3, 0.5, 1)],
)
def test_visible_patches_are_the_floor(patches: int, ratio: float, visible: int) -> None:
    assert num_visible_patches(patches, ratio) == visible


@pytest.mark.parametrize("ratio", [i / 20 for i in range(1, 20)])
@pytest.mark.parametrize("patches", [20, 35])
def test_visible_and_masked_partition_the_patches(
    patches: int, ratio: float, generator: torch.Generator
) -> None:
    visible = num_visible_patches(patches, ratio)
    masking = RandomMasking((1, patches), visible)
    mask = Mask(torch.stack([masking.draw(generator) for _ in range(3)]), visible)
    for seen, hidden, flags in zip(mask.visible, mask.masked, mask.is_masked, strict=True):
        assert len(seen) == visible and len(hidden) == patches - visible
        assert sorted([*seen.tolist(), *hidden.tolist()]) == list(range(patches))
        assert flags.nonzero().flatten().tolist() == sorted(hidden.tolist())
    assert not torch.equal(mask.visible[0], mask.visible[1])  # each clip has its own


def test_every_patch_is_masked_equally_often(generator: torch.Generator) -> None:
    masking = RandomMasking((2, 5), 3)
    mask = Mask(torch.stack([masking.draw(generator) for _ in range(4000)]), 3)
    share = mask.is_masked.float().mean(dim=0)
    assert (share - 0.7).abs().max() < 0.04  # 5 standard deviations


def test_restore_order_undoes_the_shuffle(generator: torch.Generator) -> None:
    mask = Mask(torch.tensor([[2, 0, 3, 1]]), 2)
    tokens = torch.tensor([[[0.0], [10.0], [20.0], [30.0]]])
    visible, masked = gather_tokens(tokens, mask.visible), gather_tokens(tokens, mask.masked)
    assert visible.flatten().tolist() == [20.0, 0.0]
    assert masked.flatten().tolist() == [30.0, 10.0]
    assert torch.equal(restore_order(visible, masked, mask), tokens)
    assert mask.restore.tolist() == [[1, 3, 0, 2]]
