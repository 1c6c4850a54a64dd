"""The published training trajectory: 18 steps through the project's schedule, groups, clipping and moving average."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from m2dx.contract.components import Mask
from m2dx.encoder.published import MODEL_NAMES, rename
from m2dx.model.m2d import M2D
from m2dx.training.optim import Rates, clip_gradients
from m2dx.training.optimizers import AdamW, Cosine

STEPS, STEPS_PER_EPOCH = 18, 6


def train(parity: Any, expected: dict[str, Tensor]) -> tuple[M2D, list[float], list[float], Rates]:
    model = M2D(parity.grid, parity.size, parity.predictor)
    model.load_state_dict(rename(parity.weights("trajectory_init_weights"), MODEL_NAMES))
    schedule = Rates(
        Cosine(),
        total_steps=STEPS,
        warmup_steps=STEPS_PER_EPOCH,
        peak_lr=1e-3,
        min_lr=0.0,
        ema_start=float(expected["ema_decay"][0]),
        ema_end=float(expected["ema_decay"][-1]),
    )
    optimizer = AdamW(model.named_parameters(), weight_decay=0.05, learning_rate=0.0, betas=(0.9, 0.95))
    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        mask = Mask(expected["ids_shuffle"][step], parity.meta["num_visible"])
        loss = model(expected["data"][step % STEPS_PER_EPOCH], mask).loss
        loss.backward()
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        norms.append(clip_gradients(trained, 3.0).item())
        optimizer.step()
        optimizer.zero_grad()
        model.update_target(schedule.ema_decay(step))
        losses.append(loss.item())
    return model, losses, norms, schedule


def test_trajectory(parity: Any) -> None:
    expected = load_file(parity.folder / "trajectory.safetensors")
    model, losses, norms, schedule = train(parity, expected)
    steps = range(STEPS)
    assert [schedule.learning_rate(s) for s in steps] == pytest.approx(expected["lr"].tolist(), abs=1e-12)
    assert [schedule.ema_decay(s) for s in steps] == pytest.approx(expected["ema_decay"].tolist(), abs=1e-12)
    assert losses == pytest.approx(expected["losses"].tolist(), abs=1e-4)
    assert norms == pytest.approx(expected["grad_norm"].tolist(), abs=1e-4)
    for name in ("blocks.0.mlp.fc1.weight", "target_blocks.1.mlp.fc2.bias"):
        trunk, own = (model.target, name[7:]) if name.startswith("target_") else (model.online.trunk, name)
        torch.testing.assert_close(
            trunk.get_parameter(own).detach(), expected[f"final_{name}"], rtol=0, atol=1e-5
        )
