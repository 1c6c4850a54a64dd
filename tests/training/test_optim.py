"""Schedules and parameter groups."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from m2dx.model.m2d import M2D
from m2dx.model.patches import PatchGrid
from m2dx.model.vit import ViTSize
from m2dx.training.optim import Schedule, load_moments, parameter_groups


def make_schedule(**options: float) -> Schedule:
    values: dict[str, Any] = {
        "total_steps": 110,
        "warmup_steps": 10,
        "peak_lr": 2.0,
        "min_lr": 0.5,
        "ema_start": 0.9,
        "ema_end": 0.99,
    }
    return Schedule(**{**values, **options})


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (5, 1.0),
        (10, 2.0),
        (35, 0.5 + 1.5 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the cosine
        (60, 1.25),  # half of it
        (110, 0.5),
    ],
)
def test_learning_rate(step: int, expected: float) -> None:
    assert make_schedule().learning_rate(step) == pytest.approx(expected)


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert make_schedule(warmup_steps=0.0).learning_rate(0) == 2.0
    assert make_schedule(warmup_steps=2.5).learning_rate(2) == pytest.approx(1.6)


def test_decay_is_interpolated_from_the_first_step_to_the_last() -> None:
    schedule = make_schedule(total_steps=10)
    decays = [schedule.ema_decay(step) for step in range(10)]
    assert decays == pytest.approx([0.9 + 0.01 * step for step in range(10)])
    assert make_schedule(total_steps=1).ema_decay(0) == 0.9


def test_groups() -> None:
    """Matrices and tokens decay; biases and norms do not; the target is not trained."""
    model = M2D(PatchGrid((32, 32), (16, 16)), ViTSize(16, 1, 2), ViTSize(8, 1, 2))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, rest = (
        {names[id(p)] for p in group["params"]} for group in parameter_groups(model.named_parameters(), 0.05)
    )
    assert [group["weight_decay"] for group in parameter_groups(model.named_parameters(), 0.05)] == [
        0.05,
        0.0,
    ]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert decayed | rest == trained and not decayed & rest
    assert not [name for name in trained if name.startswith("target.")]
    tokens = {"online.cls_token", "predictor.mask_token"}  # as the published trajectory has it
    assert tokens <= decayed
    assert all(model.get_parameter(name).ndim >= 2 and "norm" not in name for name in decayed)
    assert all(name.endswith(".bias") or "norm" in name for name in rest)


def make_optimizer(weight_decay: float) -> torch.optim.AdamW:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(parameter_groups(layer.named_parameters(), weight_decay), betas=(0.9, 0.95))
    layer(torch.ones(1, 2)).sum().backward()
    return optimizer


def test_moments_are_loaded_and_options_kept() -> None:
    before, after = make_optimizer(0.05), make_optimizer(0.2)
    before.step()
    load_moments(after, before.state_dict())
    assert [group["weight_decay"] for group in after.param_groups] == [0.2, 0.0]
    (state,) = (s for p, s in after.state.items() if p.ndim == 2)
    assert state["step"] == 1 and (state["exp_avg"] != 0).all()


def test_moments_of_other_parameters_are_refused() -> None:
    other = torch.optim.AdamW(nn.Linear(2, 2, bias=False).parameters())
    make: Callable[[], None] = lambda: load_moments(make_optimizer(0.0), other.state_dict())  # noqa: E731
    with pytest.raises(ValueError, match="different number of parameter groups"):
        make()
