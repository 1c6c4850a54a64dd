"""Checks of the components that draw: noise sources, augmentations, and maskings on grids of several shapes."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2dx.contract.components import Augmentation, Masking, NoiseSource
from m2dx.model.masking import MaskDraw
from m2dx.testing.rules import Subject
from m2dx.testing.tensors import check_module

DRAWS = 8
NUM_SAMPLES = (400, 15_360, 33_333)


TRIAL_MASKS: tuple[Mapping[str, Any], ...] = tuple(
    {"grid": grid, "num_visible": visible, "patch_seconds": seconds}
    for grid, seconds in (((5, 38), 0.16), ((1, 13), 0.02), ((3, 7), 0.04), ((14, 14), None))
    for visible in (grid[0] * grid[1] * 3 // 10, grid[0] * grid[1] // 2)
)
"""What the engine offers to a masking: default grids and numbers of visible patches on which maskings are tried."""


def check_noise_source(cls: type[NoiseSource], sample_rate: int = 16_000, /, **options: Any) -> None:
    """Checks a noise source: length and type of its draws, and that all randomness comes from the generator."""
    subject = Subject.of("noise_source", cls, options)

    def draw(source: NoiseSource, seed: int) -> Tensor:
        num_samples = NUM_SAMPLES[seed % len(NUM_SAMPLES)]
        where = f"draw({num_samples}, generator)"
        with subject.attempt(where):
            wav = source.draw(num_samples, torch.Generator().manual_seed(seed))
        subject.must(
            isinstance(wav, Tensor) and wav.dtype == torch.float32 and wav.device.type == "cpu",
            f"{where} must give a float32 tensor on the CPU, but gave {getattr(wav, 'dtype', type(wav).__name__)}",
        )
        subject.check_output(wav, (num_samples,), where)
        subject.must(not wav.requires_grad, "its samples must have no gradient")
        return wav

    offered: Mapping[str, Any] = {"sample_rate": sample_rate}
    source = subject.build(**offered)
    same = torch.equal(draw(source, 0), draw(source, len(NUM_SAMPLES)))
    subject.must(not same, "another generator must give other noise")
    _check_draws(subject, "noise", draw, offered)
    subject.must(isinstance(source.drain_bad(), list), "drain_bad must give a list of (path, reason)")


def check_augmentation(cls: type[Augmentation], sample_rate: int = 16_000, /, **options: Any) -> None:
    """Checks an augmentation on noise and silence: shape, type, and that all randomness comes from the seeds.

    A clip must come out the same in another batch, unless it says `mixes_clips`.
    """
    subject, offered = Subject.of("augmentation", cls, options), {"sample_rate": sample_rate}
    changes = getattr(cls, "changes", None)
    shapes = {"waveform": (sample_rate,), "logmel": (1, 80, 96)}
    subject.must(changes in shapes, f"`changes` must be 'waveform' or 'logmel', but is {changes!r}")
    given = torch.randn(4, *shapes[str(changes)], generator=torch.Generator().manual_seed(0)) * 0.1
    given[3] = 0.0
    before = given.clone()

    def change(augmentation: Augmentation, seed: int) -> Tensor:
        with subject.attempt("forward"), torch.no_grad():
            changed: Tensor = augmentation(given, torch.arange(4) + 4 * seed)
        subject.check_output(changed, tuple(given.shape), "forward")
        subject.must(changed.dtype == given.dtype, f"forward must give float32, but gave {changed.dtype}")
        subject.must(torch.equal(given, before), "forward must leave its input as it is")
        return changed

    augmentation = subject.build(**offered)
    first = change(augmentation, 0)
    others = [change(augmentation, seed) for seed in range(1, DRAWS)]
    alike = all(torch.equal(first, other) for other in others)
    subject.must(not alike, "other seeds must give other changes")
    alone = augmentation(given[1:2], torch.arange(1, 2))
    subject.must(
        cls.mixes_clips or torch.allclose(alone, first[1:2], atol=1e-5),
        "a clip must be changed the same whatever the others of its batch are; draw from the seeds, or say mixes_clips",
    )
    _check_draws(subject, "change", change, offered)
    seeds = torch.arange(4)
    check_module(subject, lambda module, device: module(given.to(device), seeds.to(device)), **offered)


def check_masking(cls: type[Masking], trial: Mapping[str, Any] | None = None, /, **options: Any) -> None:
    """Checks a masking on several grids: it gives permutations, and all randomness comes from the generator.

    One that looks is shown noise and silence at several steps; all randomness then comes from ids and seeds.
    Grids that it refuses with `RecipeError` are left out; `trial` replaces them all.
    """
    subject = Subject.of("masking", cls, options)

    def draw(grid: tuple[int, int], masking: Masking, seed: int) -> Tensor:
        masks, generator = MaskDraw(masking, math.prod(grid)), torch.Generator().manual_seed(seed)
        with subject.attempt("drawing"):
            ids = masks(generator)
        if not masks.looks:
            return ids
        logmel, seeds = torch.zeros(2, 1, 16 * grid[0], 16 * grid[1]), torch.tensor([seed, -seed - 1])
        logmel[0].normal_(generator=generator)
        looked = []
        for rows in (slice(0, 2), slice(0, 1)):
            with subject.attempt("look"):
                seen, ids_of = logmel[rows].clone(), ids.expand(2, -1)[rows]
                looked.append(masks.look(ids_of, seen, progress=seed / DRAWS, seeds=seeds[rows]))
            subject.must(torch.equal(seen, logmel[rows]), "look must leave the log-mel as it is")
        alone = torch.equal(looked[1][0], looked[0][0])
        subject.must(alone, "look must give a clip the same mask whatever the others of its batch are")
        return looked[0]

    for offered in subject.accepted(TRIAL_MASKS if trial is None else (trial,)):
        _check_draws(subject, "mask", partial(draw, offered["grid"]), offered)


def _check_draws(
    subject: Subject, what: str, draw: Callable[[Any, int], Tensor], offered: Mapping[str, Any]
) -> None:
    """Checks that all randomness of `draw` comes from its generator or seeds, and that what draws can be pickled.

    Not augmentations, which stay in the process of the model.
    """
    before, component = _global_states(), subject.build(**offered)
    first = [draw(component, seed) for seed in range(DRAWS)]
    source = "seeds" if isinstance(component, Augmentation) else "generator"
    for other, which in ((component, "the same object"), (subject.build(**offered), "a fresh one")):
        same = all(torch.equal(drawn, draw(other, seed)) for seed, drawn in enumerate(first))
        text = f"the same {source} must give the same {what} again, also from {which}; draw from nothing else"
        subject.must(same, f"{text}, and keep no state")
    subject.must(before == _global_states(), "it must leave the global generators of torch and numpy alone")
    if source == "generator":
        with subject.attempt("pickling it, as loading processes do outside of Linux,"):
            pickle.loads(pickle.dumps(component))


def _global_states() -> tuple[str, str]:
    return repr(torch.get_rng_state().tolist()), repr(np.random.get_state())  # noqa: NPY002  what is looked at
