"""The check of weight maps, on weights that their author makes up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from m2dx.contract.components import WeightMap
from m2dx.model.vit import Encoder
from m2dx.testing.methods import SIZE, TRIAL_GRIDS
from m2dx.testing.rules import Subject


def check_weight_map(
    cls: type[WeightMap], state: Mapping[str, Tensor] | None = None, /, **options: object
) -> None:
    """Checks a weight map: of names that it does not know it gives none, and takes none.

    With a `state`, weights of the other project for a ViT of `m2dx.testing.methods.SIZE`: names and shapes are those of
    an encoder, and the tensors stay as they are.
    """
    subject, stranger = Subject.of("weight_map", cls, options), "m2dx.testing.unknown"
    for grid in TRIAL_GRIDS:
        own = Encoder(grid, SIZE).state_dict()
        left = {**(state or {}), stranger: torch.zeros(2, 3)}
        before = {name: tensor.clone() for name, tensor in left.items()}
        with subject.attempt("tensors"):
            given = subject.build(grid=grid, size=SIZE).tensors(left)
        subject.must(isinstance(given, dict), f"tensors must give a dict, but gave {given!r}")
        subject.must(stranger in left, "tensors must leave what it does not know in `state`")
        if state is None:
            subject.must(not given, f"tensors must give none of an unknown name, but gave {given}")
        else:
            subject.must(bool(given), "tensors must give tensors of the state, but gives none")
        for name, tensor in given.items():
            subject.must(name in own, f"tensors must give names of an encoder, but gives {name}")
            subject.check_output(tensor, tuple(own[name].shape), f"tensors ({name})")
        kept = all(torch.equal(tensor, before[name]) for name, tensor in (state or {}).items())
        subject.must(kept, "tensors must not change the values in `state`")
