"""Checks that a plugin author runs on a component class, one call in a test.

Each raises `ComponentCheckError`, which says what must hold, what it is, and what to do. Options are given by
keyword, as in a recipe; `check_component(MyLoss, delta=0.5)` picks the check by the base class.
"""

from __future__ import annotations

from typing import Any

from m2dx.contract.components import KINDS
from m2dx.testing.backbones import check_backbone
from m2dx.testing.datasets import check_dataset
from m2dx.testing.draws import check_augmentation, check_masking, check_noise_source
from m2dx.testing.evaluators import check_evaluator
from m2dx.testing.methods import check_method
from m2dx.testing.modules import check_loss, check_offline_encoder, check_online_mapper, check_regulariser
from m2dx.testing.rules import ComponentCheckError
from m2dx.testing.training import check_callback, check_optimizer, check_schedule
from m2dx.testing.weight_maps import check_weight_map

__all__ = [
    "ComponentCheckError",
    "check_augmentation",
    "check_backbone",
    "check_callback",
    "check_component",
    "check_dataset",
    "check_evaluator",
    "check_loss",
    "check_masking",
    "check_method",
    "check_noise_source",
    "check_offline_encoder",
    "check_online_mapper",
    "check_optimizer",
    "check_regulariser",
    "check_schedule",
    "check_weight_map",
]


def check_component(cls: type, /, **options: Any) -> None:
    """Runs the check for the kind of a component, `check_<kind>`; its base class decides the kind."""
    for kind, base in KINDS.items():
        if isinstance(cls, type) and issubclass(cls, base):
            globals()[f"check_{kind}"](cls, **options)
            return
    bases = ", ".join(f"m2dx.{base.__name__}" for base in KINDS.values())
    raise ComponentCheckError(f"{cls!r} must be a subclass of one of {bases}")
