"""The check of maskings, on patch grids of several shapes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m2dx.contract.components import Masking
from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.model.masking import MaskDraw
from m2dx.testing.rules import Subject


@dataclass(frozen=True)
class MaskTrial:
    """What the engine offers to a masking."""

    grid: tuple[int, int]  # (F, T), patches
    num_visible: int  # V
    patch_seconds: float | None  # None: the input has no time


TRIAL_MASKS = tuple(
    MaskTrial(grid, visible, seconds)
    for grid, seconds in (((5, 38), 0.16), ((1, 13), 0.02), ((3, 7), 0.04), ((14, 14), None))
    for visible in (grid[0] * grid[1] * 3 // 10, grid[0] * grid[1] // 2)
)
"""Grids and numbers of visible patches that maskings are tried on, by default."""
DRAWS = 8


def check_masking(cls: type[Masking], trial: MaskTrial | None = None, /, **options: object) -> None:
    """Checks a masking on several grids: permutations, all of whose randomness comes from the generator.

    Grids that it refuses with `RecipeError` are left out; `trial` replaces them all. Raises `ComponentCheckError`.
    """
    subject = Subject.of("masking", cls, options)
    refusals, trials = [], TRIAL_MASKS if trial is None else (trial,)
    for offered in trials:
        try:
            masking: Masking = subject.build(**vars(offered))
        except RecipeError as error:
            refusals.append(str(error))
            continue
        _check_draws(subject, masking, offered)
    if len(refusals) == len(trials):
        subject.fail(f"some grid must be accepted, but all are refused, the last with: {refusals[-1]}")


def _check_draws(subject: Subject, masking: Masking, trial: MaskTrial) -> None:
    draw = MaskDraw(masking, trial.grid[0] * trial.grid[1])
    states = _global_states()
    first = [_drawn(subject, draw, seed) for seed in range(DRAWS)]
    again = [
        _drawn(subject, MaskDraw(subject.build(seed=1, **vars(trial)), draw.num_patches), s)
        for s in range(DRAWS)
    ]
    for other in ([_drawn(subject, draw, seed) for seed in range(DRAWS)], again):
        same = all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
        subject.must(
            same,
            "the same generator must give the same mask, also from a fresh masking; draw everything with it, and keep "
            "no state",
        )
    subject.must(states == _global_states(), "draw must leave the global generators of torch and numpy alone")
    with subject.attempt("pickling it, as loading processes do outside of Linux,"):
        pickle.loads(pickle.dumps(masking))


def _drawn(subject: Subject, draw: MaskDraw, seed: int) -> Tensor:
    try:
        return draw(torch.Generator().manual_seed(seed))
    except M2dxError as error:
        subject.fail(str(error))


def _global_states() -> tuple[str, str]:
    return repr(torch.get_rng_state().tolist()), repr(np.random.get_state())  # noqa: NPY002  what is looked at
