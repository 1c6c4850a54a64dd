"""Checks that a plugin author runs on a component class, one call in a test.

Each raises `ComponentCheckError`, which says what must hold, what it is, and what to do. Options are given by
keyword, as in a recipe; `check_component(MyLoss, delta=0.5)` picks the check by the base class.
"""

from __future__ import annotations

from typing import Any

from m2dx.contract.components import KINDS
from m2dx.testing.backbones import check_backbone as check_backbone
from m2dx.testing.datasets import check_dataset as check_dataset
from m2dx.testing.draws import check_augmentation as check_augmentation
from m2dx.testing.draws import check_masking as check_masking
from m2dx.testing.draws import check_noise_source as check_noise_source
from m2dx.testing.evaluators import check_evaluator as check_evaluator
from m2dx.testing.methods import check_method as check_method
from m2dx.testing.modules import check_loss as check_loss
from m2dx.testing.modules import check_offline_encoder as check_offline_encoder
from m2dx.testing.modules import check_online_mapper as check_online_mapper
from m2dx.testing.modules import check_regulariser as check_regulariser
from m2dx.testing.rules import ComponentCheckError as ComponentCheckError
from m2dx.testing.training import check_callback as check_callback
from m2dx.testing.training import check_optimizer as check_optimizer
from m2dx.testing.training import check_schedule as check_schedule
from m2dx.testing.weight_maps import check_weight_map as check_weight_map

__all__ = ["ComponentCheckError", "check_component", *(f"check_{kind}" for kind in KINDS)]


def check_component(cls: type, /, **options: Any) -> None:
    """Runs the check for the kind of a component, `check_<kind>`; its base class decides the kind."""
    for kind, base in KINDS.items():
        if isinstance(cls, type) and issubclass(cls, base):
            globals()[f"check_{kind}"](cls, **options)
            return
    bases = ", ".join(f"m2dx.{base.__name__}" for base in KINDS.values())
    raise ComponentCheckError(f"{cls!r} must be a subclass of one of {bases}")
