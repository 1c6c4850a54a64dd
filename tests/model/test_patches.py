"""The patch grid, its positions and eq. (4), against values written out by hand."""

import math

import pytest
import torch

from m2dx.contract.components import PatchGrid, ViTSize
from m2dx.model.mae import MSMMAE
from m2dx.model.patches import line_positions, patchify, sincos_positions, time_frames
from m2dx.model.vit import Encoder


@pytest.mark.parametrize(
    ("input_size", "patch_size", "shape"),
    [((80, 608), (16, 16), (5, 38)), ((80, 208), (16, 4), (5, 52)), ((80, 200), (80, 2), (1, 100))],
)
def test_grids(input_size: tuple[int, int], patch_size: tuple[int, int], shape: tuple[int, int]) -> None:
    grid = PatchGrid(input_size, patch_size)
    assert grid.shape == shape and grid.num_patches == shape[0] * shape[1]


def test_whole_patches_only() -> None:
    with pytest.raises(ValueError, match=r"\(80, 100\) must be a multiple of the patch \(16, 16\)"):
        PatchGrid((80, 100), (16, 16))


def test_equation_4() -> None:
    """(B, F*T, D) -> (B, T, F*D): token f of frequency and t of time is [10 f + t, -(10 f + t)]."""
    values = [[10.0 * f + t for t in range(3)] for f in range(2)]
    z = torch.tensor([[[v, -v] for row in values for v in row]])  # (1, 2*3, 2)
    expected = [[0, 0, 10, -10], [1, -1, 11, -11], [2, -2, 12, -12]]
    assert time_frames(z, (2, 3)).tolist() == [expected]
    paper = z.reshape(1, 2, 3, 2).transpose(1, 2).reshape(1, 3, 4)
    assert torch.equal(time_frames(z, (2, 3)), paper)


def test_positions_by_hand() -> None:
    """Width 8, 2 x 3 patches: [sin t, sin t/100, cos t, cos t/100, sin f, sin f/100, cos f, cos f/100]."""
    table = sincos_positions((2, 3), 8)
    assert table.shape == (1, 7, 8)
    assert table[0, 0].tolist() == [0.0] * 8  # class token
    f, t = 1, 2
    expected = [g(p / rate) for p in (t, f) for g in (math.sin, math.cos) for rate in (1.0, 100.0)]
    assert table[0, 1 + f * 3 + t].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_positions((2, 3), 6)


def test_patchify_is_in_the_order_of_the_patches() -> None:
    logmel = torch.arange(24.0).reshape(1, 1, 4, 6)
    patches = patchify(logmel, (2, 3))
    assert patches[0].tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]


def test_the_embedding_sees_patches_in_that_order() -> None:
    """One token per patch, and each depends on its own patch alone."""
    encoder = Encoder(PatchGrid((32, 48), (16, 16)), ViTSize(8, 1, 2))
    quiet = torch.zeros(1, 1, 32, 48)
    loud = quiet.clone()
    loud[..., 16:32, 32:48] = 1.0  # f = 1, t = 2
    changed = (encoder.embed(loud) - encoder.embed(quiet))[0].abs().sum(dim=1) > 0
    assert changed.nonzero().flatten().tolist() == [1 * 3 + 2]


def test_positions_of_shorter_and_longer_inputs() -> None:
    encoder = Encoder(PatchGrid((32, 48), (16, 16)), ViTSize(8, 1, 2))
    table = encoder.pos_embed[0, 1:].unflatten(0, (2, 3))
    assert torch.equal(encoder.positions(2)[0].unflatten(0, (2, 2)), table[:, :2])
    assert torch.equal(encoder.positions(3)[0].unflatten(0, (2, 3)), table)
    longer = encoder.positions(9)[0].unflatten(0, (2, 9))
    torch.testing.assert_close(longer[:, 4], table[:, 1], rtol=0, atol=1e-3)  # the middle stays the middle
    torch.testing.assert_close(longer[:, :, 4:], table[:, :1, 4:].expand(-1, 9, -1), rtol=0, atol=1e-5)


def test_positions_on_a_line_count_the_patches():
    table = line_positions(5, 8)
    assert table.shape == (1, 6, 8) and not table[0, 0].any()
    rates = torch.tensor([1.0, 10_000**-0.25, 10_000**-0.5, 10_000**-0.75])
    expected = torch.cat([(3 * rates).sin(), (3 * rates).cos()])
    torch.testing.assert_close(table[0, 4], expected)
    method = MSMMAE(
        PatchGrid((32, 48), (16, 16)), ViTSize(192, 1, 3), ViTSize(8, 1, 2), decoder_positions="1d"
    )
    torch.testing.assert_close(method.predictor.pos_embed, line_positions(6, 8))
    assert "predictor.pos_embed" in method.state_dict()
