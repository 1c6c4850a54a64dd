"""check_masking fails for each break of the contract that it is meant to find."""

import pytest
import torch

import m2dx
from m2dx.testing import ComponentCheckError, check_component, check_masking


class Shuffled(m2dx.Masking):
    """All patches in a random order.

    Options:
        wide: accept grids from this number of columns on
    """

    name = "shuffled"

    def __init__(self, grid, num_visible, *, wide: int = 0) -> None:
        super().__init__(grid, num_visible)
        if grid[1] < wide:
            raise m2dx.RecipeError("too narrow")

    def draw(self, generator):
        return torch.randperm(self.grid[0] * self.grid[1], generator=generator)


class Sampled(Shuffled):
    """As many as are visible only."""

    def draw(self, generator):
        return super().draw(generator)[: self.num_visible]


class Global(Shuffled):
    """From torch's own generator."""

    def draw(self, generator):
        return torch.randperm(self.grid[0] * self.grid[1])


class Both(Shuffled):
    """From the clip's generator, and some of torch's own."""

    def draw(self, generator):
        torch.rand(1)
        return super().draw(generator)


class Counting(Shuffled):
    """Turns with each draw."""

    turns = 0

    def draw(self, generator):
        self.turns += 1
        return super().draw(generator).roll(self.turns)


class Unpicklable(Shuffled):
    """Keeps a function."""

    def __init__(self, grid, num_visible) -> None:
        super().__init__(grid, num_visible)
        self.function = lambda: None


class Failing(Shuffled):
    """Fails."""

    def draw(self, generator):
        raise IndexError("no patch")


class Looking(Shuffled):
    """The loudest patches first, or at random where all are alike."""

    def look(self, ids, logmel, *, progress, seeds):
        loud = logmel[:, 0, ::16, ::16].flatten(1) + m2dx.seeded_uniform(seeds, ids.shape[1])
        return loud.argsort(dim=1)


class Crowded(Looking):
    """By the batch's mean."""

    def look(self, ids, logmel, *, progress, seeds):
        return super().look(ids, logmel * logmel.mean(dim=0), progress=progress, seeds=seeds)


class Scribbling(Looking):
    """Leaves its marks."""

    def look(self, ids, logmel, *, progress, seeds):
        logmel += 1
        return ids


class Rolling(Looking):
    """From torch's own generator."""

    def look(self, ids, logmel, *, progress, seeds):
        return torch.rand(ids.shape).argsort(dim=1)


class Sparing(Looking):
    """The visible ones alone."""

    def look(self, ids, logmel, *, progress, seeds):
        return ids[:, : self.num_visible]


def test_a_sound_masking_passes():
    check_masking(Shuffled)
    check_masking(Looking)
    check_component(Shuffled, wide=20)  # other grids are refused
    check_masking(Shuffled, {"grid": (2, 2), "num_visible": 1, "patch_seconds": None})


@pytest.mark.parametrize(
    ("component", "match"),
    [
        (Sampled, r"must give a permutation \(190,\) torch.int64 of the patches, but gave \(57,\)"),
        (Global, "the same generator must give the same mask"),
        (Both, "must leave the global generators of torch and numpy alone"),
        (Counting, "keep no state"),
        (Unpicklable, "pickling it"),
        (Failing, r"draw failed: IndexError: no patch"),
        (Crowded, "look must give a clip the same mask whatever the others of its batch are"),
        (Scribbling, "look must leave the log-mel as it is"),
        (Rolling, "look must give a clip the same mask whatever|the same generator must give the same mask"),
        (Sparing, r"look must give a permutation for each clip, \(2, 190\) torch.int64 of .* gave \(2, 57\)"),
    ],
)
def test_a_broken_masking_is_found(component, match):
    with pytest.raises(ComponentCheckError, match=match):
        check_masking(component)


def test_a_masking_that_refuses_every_grid_is_found():
    with pytest.raises(ComponentCheckError, match="refuses all that were tried; the last time: too narrow"):
        check_masking(Shuffled, wide=1000)
