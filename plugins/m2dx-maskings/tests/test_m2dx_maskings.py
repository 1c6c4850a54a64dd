"""Exactly V patches visible, in the shape that each masking promises."""

import itertools

import pytest
import torch
from m2dx_maskings import (
    ChessboardMasking,
    HorizontalMasking,
    StructuredMasking,
    TimeRunsMasking,
    VerticalMasking,
    maskings,
)

import m2dx
from m2dx.model.build import build_masking
from m2dx.model.masking import MaskDraw
from m2dx.recipe.loading import recipe_from_mapping
from m2dx.testing import check_masking

GRIDS = [(5, 38), (1, 13), (3, 7), (14, 14)]


def masked(masking, seed=0):
    """(F, T) bool, true where masked, from a draw that is checked to be a permutation."""
    freq, time = masking.grid
    ids = MaskDraw(masking, freq * time)(torch.Generator().manual_seed(seed))
    flags = torch.ones(freq * time, dtype=torch.bool)
    flags[ids[: masking.num_visible]] = False
    assert int((~flags).sum()) == masking.num_visible
    return flags.view(freq, time)


@pytest.mark.parametrize("cls", maskings())
def test_each_keeps_the_contract(cls):
    check_masking(cls)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_structured_masks_whole_rows_and_columns_and_part_of_one(grid, share):
    patches = grid[0] * grid[1]
    for visible, seed in itertools.product((1, patches // 3, patches - 1), range(10)):
        flags = masked(StructuredMasking(grid, visible, frequency_share=share), seed)
        rows, columns = flags.all(dim=1), flags.all(dim=0)
        rest = flags[~rows][:, ~columns]
        partial = rest.any(dim=1) if share == 1 else rest.any(dim=0)
        assert int(partial.sum()) <= 1


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_structured_masks_the_given_share_by_rows(share):
    flags = torch.stack(
        [masked(StructuredMasking((14, 14), 60, frequency_share=share), s) for s in range(300)]
    )
    rows = flags.all(dim=2).sum(dim=1).float().mean()
    wanted = share * (196 - 60) / 14
    assert rows == pytest.approx(wanted, abs=0.75 if share == 1 else 0.1)  # whole rows only


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid[1] > 3])
def test_time_runs_mask_whole_columns_in_runs(grid):
    freq, time = grid
    for visible, seed in itertools.product((freq * time // 3, freq * time // 2), range(10)):
        flags = masked(TimeRunsMasking(grid, visible, 0.16, run_patches=3), seed)
        whole, some = flags.all(dim=0), flags.any(dim=0)
        assert int((some & ~whole).sum()) <= 1
        runs = [len(list(group)) for value, group in itertools.groupby(some.tolist()) if value]
        inner = [n for n in runs if n < 3]
        # Cut runs: one at each end of the clip, and the last one drawn.
        assert len(inner) <= 3


def test_time_runs_mask_each_column_as_often_as_any_other():
    flags = torch.stack([masked(TimeRunsMasking((2, 20), 20, None, run_patches=4), s) for s in range(2000)])
    assert (flags.float().mean(dim=0) - 0.5).abs().max() < 0.06


def test_the_length_of_runs_may_be_in_seconds():
    assert TimeRunsMasking((5, 38), 57, 0.16, run_seconds=0.5).run_patches == 3
    assert TimeRunsMasking((5, 38), 57, 0.16, run_seconds=0.01).run_patches == 1
    assert TimeRunsMasking((5, 38), 57, 0.16, run_patches=7).run_patches == 7
    with pytest.raises(m2dx.RecipeError, match="no longer than the input of 38 patches, but is 40"):
        TimeRunsMasking((5, 38), 57, 0.16, run_patches=40)
    with pytest.raises(m2dx.RecipeError, match="needs an input with time; use run_patches"):
        TimeRunsMasking((14, 14), 57, None, run_seconds=1.0)


def test_patterns_alternate_and_start_either_way():
    rows, columns = torch.arange(4)[:, None], torch.arange(6)[None]
    wanted = {
        VerticalMasking: columns + 0 * rows,
        HorizontalMasking: rows + 0 * columns,
        ChessboardMasking: rows + columns,
    }
    for cls, counts in wanted.items():
        drawn = {tuple(masked(cls((4, 6), 12), seed).flatten().tolist()) for seed in range(20)}
        assert drawn == {tuple(((counts + phase) % 2 == 1).flatten().tolist()) for phase in (0, 1)}


@pytest.mark.parametrize("cls", [VerticalMasking, HorizontalMasking, ChessboardMasking])
def test_patterns_on_odd_grids_differ_by_less_than_a_row_or_column(cls):
    flags = masked(cls((5, 13), 32))
    other = {VerticalMasking: torch.arange(13) % 2, HorizontalMasking: (torch.arange(5) % 2)[:, None]}
    counts = other.get(cls, (torch.arange(5)[:, None] + torch.arange(13)) % 2).expand(5, 13)
    changed = min(int((flags != (counts == phase)).sum()) for phase in (0, 1))
    assert changed <= 13 // 2 + 1


def test_patterns_want_half_of_the_patches_masked():
    with pytest.raises(m2dx.RecipeError, match=r"model.mask_ratio must be 0.5.*it leaves 57 of 190"):
        ChessboardMasking((5, 38), 57)
    with pytest.raises(m2dx.RecipeError, match=r"two rows \(frequency\) or more, but is 1 x 12"):
        HorizontalMasking((1, 12), 6)
    assert masked(ChessboardMasking((1, 12), 6)).sum() == 6


@pytest.mark.parametrize(
    ("masking", "sections", "match"),
    [
        ("vertical", {}, r"model.mask_ratio must be 0.5"),
        ({"name": "time_runs", "run_seconds": 0.5}, {"image": {}}, "run_seconds needs an input with time"),
    ],
)
def test_a_recipe_that_a_masking_does_not_fit_is_refused(masking, sections, match, make_host):
    host = make_host("maskings")
    data = {"sets": {"field": {"dataset": {"name": "folder", "path": "recordings"}}}}
    mapping = {"data": data, "model": {"masking": masking}, **sections}
    with pytest.raises(m2dx.RecipeError, match=match):
        build_masking(recipe_from_mapping(mapping, host=host, source="test"), host)
