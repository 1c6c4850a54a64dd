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


def test_a_sound_masking_passes():
    check_masking(Shuffled)
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
        (Failing, r"draw\(generator\) failed: IndexError: no patch"),
    ],
)
def test_a_broken_masking_is_found(component, match):
    with pytest.raises(ComponentCheckError, match=match):
        check_masking(component)


def test_a_masking_that_refuses_every_grid_is_found():
    with pytest.raises(ComponentCheckError, match="refuses all that were tried; the last time: too narrow"):
        check_masking(Shuffled, wide=1000)
