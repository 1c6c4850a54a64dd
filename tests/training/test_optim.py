"""Schedules, parameter groups, and what makes a step fast."""

import copy
import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import m2dx
from m2dx.contract.components import Mask, Optimizer, PatchGrid, ViTSize
from m2dx.contract.errors import PluginError
from m2dx.contract.host import PluginHost
from m2dx.jobs import core
from m2dx.model.m2d import M2D
from m2dx.training.optim import Rates, build_optimizer, clip_gradients, load_moments
from m2dx.training.optimizers import AdamW, Cosine, parameter_groups


def make_schedule(**options: float) -> Rates:
    values: dict[str, Any] = {
        "total_steps": 110,
        "warmup_steps": 10,
        "peak_lr": 2.0,
        "min_lr": 0.5,
        "ema_start": 0.9,
        "ema_end": 0.99,
    }
    return Rates(Cosine(), **{**values, **options})


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
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = parameter_groups(trained.items(), 0.05)
    decayed, rest = ({names[id(p)] for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert decayed | rest == trained.keys() and not decayed & rest
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


def test_moments_of_an_optimizer_that_was_not_fused_go_on_fused() -> None:
    before, layer = make_optimizer(0.05), nn.Linear(2, 2)
    before.step()
    after = AdamW(layer.named_parameters(), weight_decay=0.05, learning_rate=0.1, betas=(0.9, 0.95))
    seen: list[list[bool]] = []
    # What it loads tells torch where to keep the count of steps, so the option must be in there already.
    after.register_load_state_dict_pre_hook(
        lambda _, state: seen.append([group["fused"] for group in state["param_groups"]])
    )
    load_moments(after, before.state_dict())
    assert seen == [[True, True]]
    layer(torch.ones(1, 2)).sum().backward()
    after.step()
    assert [group["lr"] for group in after.param_groups] == [0.1, 0.1]
    assert [s["step"].item() for s in after.state.values()] == [2.0, 2.0]


@pytest.mark.parametrize("clip_norm", [None, 0.01, 1000.0])  # never, each time, when there is nothing to clip
def test_the_fast_forms_give_the_weights_of_the_plain_ones(clip_norm: float | None) -> None:
    """AdamW in one pass, clipping on demand and one moving average for all tensors, over five steps."""
    grid, size, generator = PatchGrid((32, 32), (16, 16)), ViTSize(16, 1, 2), torch.Generator().manual_seed(0)
    fast = M2D(grid, size, size)
    plain = copy.deepcopy(fast)
    fused = AdamW(fast.named_parameters(), weight_decay=0.05, learning_rate=1e-3, betas=(0.9, 0.95))
    assert fused.param_groups[0]["fused"]
    loop = torch.optim.AdamW(
        parameter_groups(plain.named_parameters(), 0.05), lr=1e-3, betas=(0.9, 0.95), foreach=False
    )
    for _ in range(5):
        logmel = torch.randn(4, 1, 32, 32, generator=generator)
        mask = Mask(torch.rand(4, 4, generator=generator).argsort(1), 2)
        for model, optimizer in ((fast, fused), (plain, loop)):
            optimizer.zero_grad()
            model(logmel, mask).loss.backward()
        clip_gradients(list(fast.parameters()), clip_norm)
        nn.utils.clip_grad_norm_(plain.parameters(), float("inf") if clip_norm is None else clip_norm)
        fused.step()
        loop.step()
        fast.update_target(0.9)
        with torch.no_grad():
            for target, online in zip(
                plain.target.parameters(), plain.online.trunk.parameters(), strict=True
            ):
                target.copy_(0.9 * target + 0.1 * online)
    for name, value in plain.state_dict().items():
        if name.endswith(
            "attn.qkv.bias"
        ):  # the gradient of keys' biases is rounding alone, which Adam enlarges
            continue
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("clip_norm", [None, 2.0, 5.0, 10.0])
def test_gradients_are_clipped_as_torch_clips_them(clip_norm: float | None) -> None:
    def parameters() -> list[nn.Parameter]:
        made = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
        made[0].grad, made[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])  # the third has none
        return made

    own, torchs = parameters(), parameters()
    assert clip_gradients(own, clip_norm) == 5.0
    nn.utils.clip_grad_norm_(torchs, float("inf") if clip_norm is None else clip_norm)
    for mine, its in zip(own[:2], torchs[:2], strict=True):
        assert torch.equal(mine.grad, its.grad)  # type: ignore[arg-type]


def test_a_gradient_that_is_not_finite_is_told_by_its_norm() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, float("nan")])
    assert clip_gradients([parameter], 3.0).isnan()


@pytest.mark.parametrize(
    ("choose", "problem"),
    [
        (lambda weights: weights[1:], "but 0.weight is missing"),
        (lambda weights: [*weights[:-1], *weights[:1]], "but 0.weight is there 2 times"),
        (lambda weights: [*weights, nn.Parameter(torch.zeros(1))], "but has 1 other tensor, too"),
    ],
)
def test_an_optimizer_that_does_not_have_each_weight_once_is_refused(
    tiny_recipe: Any, choose: Callable[[list[Any]], list[Any]], problem: str
) -> None:
    class Some(Optimizer, torch.optim.SGD):
        """Steps some of the weights."""

        name = "some"

        def __init__(self, named_parameters: Any, learning_rate: float) -> None:
            groups = [{"params": [p]} for p in choose([p for _, p in named_parameters])]
            with warnings.catch_warnings(action="ignore"):
                torch.optim.SGD.__init__(self, groups, lr=learning_rate)

        def add_param_group(self, param_group: Any) -> None:
            self.param_groups.append({**self.defaults, **param_group})

    host = PluginHost({"m2dx": core, "acme": SimpleNamespace(optimizers=m2dx.hookimpl(lambda: [Some]))})
    train = tiny_recipe("train.optimizer=some", with_host=host).train
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].requires_grad_(False)
    with pytest.raises(PluginError, match=rf"train\.optimizer \('some' of plugin 'acme'\): .* {problem}"):
        build_optimizer(model, train, host)
