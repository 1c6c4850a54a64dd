"""Mixup and shifts in frequency, in numbers."""

import pytest
import torch

from m2dx.data.augmentations import MelShift, Mixup
from m2dx.testing import check_augmentation

SEEDS = torch.arange(200)


@pytest.mark.parametrize(
    ("cls", "options"), [(Mixup, {}), (Mixup, {"ratio": 0.9}), (MelShift, {}), (MelShift, {"mels": 1})]
)
def test_they_are_augmentations(cls, options):
    check_augmentation(cls, **options)


def test_the_background_of_mixup_is_soft():
    one = torch.zeros(200, 1, 10, 40)
    one[::2] = 2.0
    mixed = Mixup(ratio=0.4)(one, SEEDS).exp()
    loud = torch.tensor(2.0).exp()
    share = (loud - mixed[::2, 0, 0, 0]) / (loud - 1.0)  # of the background, by power
    assert float(share.min()) > 0 and 0.35 < float(share.max()) < 0.4


@pytest.mark.parametrize("mels", [1, 3])
def test_a_shift_moves_all_frames_of_a_clip_alike_and_fills_the_edge(mels):
    x = torch.arange(10.0)[:, None] + 100 * torch.arange(4.0)
    moved = MelShift(mels=mels)(x.expand(200, 1, 10, 4), SEEDS)
    by = moved[:, 0, 5, 0] - 5  # the row that has come to the middle
    assert set(by.tolist()) == set(range(-mels, mels + 1))
    rows = (torch.arange(10.0) + by[:, None]).clamp(0, 9)
    torch.testing.assert_close(moved[:, 0], rows[..., None] + 100 * torch.arange(4.0), atol=0, rtol=0)
