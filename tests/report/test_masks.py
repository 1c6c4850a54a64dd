"""Masks of pictures."""

import numpy as np
import pytest
from m2dx_draw.drawing import masks_of
from m2dx_draw.masks import PatchMask

from m2dx.contract.errors import RecipeError


@pytest.mark.parametrize(
    ("pattern", "rows"),
    [
        ("vertical", ["01010", "01010", "01010"]),
        ("horizontal", ["00000", "11111", "00000"]),
        ("chessboard", ["01010", "10101", "01010"]),
    ],
)
def test_patterns_are_whole_and_an_odd_seed_swaps_them(pattern, rows):
    expected = np.array([[cell == "1" for cell in row] for row in rows])
    assert (PatchMask(pattern).is_masked((3, 5)) == expected).all()
    assert (PatchMask(pattern, seed=2).is_masked((3, 5)) == expected).all()
    assert (PatchMask(pattern, seed=1).is_masked((3, 5)) == ~expected).all()


@pytest.mark.parametrize("grid", [(5, 19), (5, 13), (2, 2), (10, 13), (5, 38)])
@pytest.mark.parametrize("pattern", ["vertical", "horizontal", "chessboard"])
def test_on_no_grid_a_pattern_has_odd_patches(pattern, grid):
    f, t = np.indices(grid)
    line = {"vertical": t, "horizontal": f, "chessboard": f + t}[pattern]
    assert (PatchMask(pattern).is_masked(grid) == (line % 2 == 1)).all()


def test_random_masks_have_their_ratio_and_follow_the_seed():
    mask = PatchMask("random", ratio=0.75, seed=3)
    assert mask.is_masked((5, 19)).sum() == 95 - 23  # 23 = floor(95 / 4) visible
    assert (mask.is_masked((5, 19)) == mask.is_masked((5, 19))).all()
    assert (mask.is_masked((5, 19)) != PatchMask("random", ratio=0.75, seed=4).is_masked((5, 19))).any()
    few = ~PatchMask("random", ratio=0.9, seed=3).is_masked((5, 19))
    assert not (few & mask.is_masked((5, 19))).any()  # a higher ratio hides more of the same


def test_at_least_one_patch_is_visible_and_one_is_masked():
    assert (~PatchMask("random", ratio=0.999).is_masked((5, 4))).sum() == 1
    assert PatchMask("random", ratio=0.001).is_masked((5, 4)).sum() == 1


def test_titles_say_how_few_patches_are_visible():
    assert PatchMask("random", ratio=0.75).title((5, 19)) == "mask ratio 0.75"
    assert PatchMask("random", ratio=0.99).title((5, 19)) == "mask ratio 0.99, 1 visible"
    assert PatchMask("chessboard").title((5, 19)) == "chessboard"


def test_what_cannot_be_is_refused():
    with pytest.raises(
        RecipeError, match=r"one of random, vertical, horizontal, chessboard, but is 'diagonal'"
    ):
        PatchMask("diagonal")
    with pytest.raises(RecipeError, match=r"in \(0, 1\), but is 1.5"):
        PatchMask("random", ratio=1.5)
    with pytest.raises(RecipeError, match="two rows"):
        PatchMask("horizontal").is_masked((1, 76))
    with pytest.raises(RecipeError, match=r"two columns \(time\) or more"):
        PatchMask("vertical").is_masked((4, 1))
    with pytest.raises(RecipeError, match="two patches"):
        PatchMask("random").is_masked((1, 1))


def test_masks_are_made_of_patterns_ratios_and_attempts():
    assert masks_of(None, None, own_ratio=0.6) == [PatchMask("random", 0.6, 0)]
    assert masks_of([0.5, 0.9], None, attempts=2, seed=7) == [
        PatchMask("random", ratio, seed) for ratio in (0.5, 0.9) for seed in (7, 8)
    ]
    both = masks_of([0.5], ["random", "vertical"])
    assert [mask.pattern for mask in both] == ["random", "vertical"]
    with pytest.raises(RecipeError, match="are of random masks"):
        masks_of([0.5], ["vertical"])
    with pytest.raises(RecipeError, match="are of random masks"):
        masks_of(None, ["vertical"], attempts=2)
