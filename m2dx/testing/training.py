"""Checks of the components that act in the training loop: optimizers, schedules and callbacks."""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2dx.contract.components import Callback, Mask, Optimizer, PatchGrid, Schedule, Score, ViTSize
from m2dx.model.m2d import M2D
from m2dx.testing.rules import Subject
from m2dx.training.optim import coverage_problem, load_moments

STEPS = 3
CHANGING = ("after_step", "stop", "state_dict", "load_state_dict")
RESUMED = "a resumed run must go on as one that was not stopped; give all that changes in state_dict"
APART = "after_step must do the same in each process, of which the main one alone hears metrics and scores"


def check_optimizer(cls: type[Optimizer], /, **options: Any) -> None:
    """Checks an optimizer on a small M2D: it steps every trained weight, obeys `lr`, and goes on from a checkpoint.

    Raises `ComponentCheckError`.
    """
    subject, start = Subject.of("optimizer", cls, options), _small_model()

    def build(model: M2D, weight_decay: float = 0.05) -> Optimizer:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        given: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": weight_decay, "betas": (0.9, 0.95)}
        optimizer: Optimizer = subject.build(named_parameters=named, **given)
        problem = coverage_problem(optimizer, named)
        subject.must(problem is None, problem or "")
        return optimizer

    def step(model: M2D, optimizer: Optimizer, number: int, rate: float = 1e-3) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(number)
        logmel, mask = torch.randn(4, 1, 32, 32, generator=generator), torch.arange(4).expand(4, -1)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        optimizer.zero_grad()
        model(logmel, Mask(mask, 2)).loss.backward()
        with subject.attempt("step()"):
            optimizer.step()
        return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    still = copy.deepcopy(start)
    for name, value in step(still, build(still, 0.0), 0, rate=0.0).items():
        same = torch.equal(value, start.get_parameter(name))
        subject.must(same, f"at a rate of 0 it must leave weights as they are, but changes {name}")
    model = copy.deepcopy(start)
    optimizer = build(model)
    for number in range(STEPS):
        after = step(model, optimizer, number)
    for name, value in after.items():
        subject.must(bool(value.isfinite().all()), f"weights must stay finite, but {name} does not")
        subject.must(not torch.equal(value, start.get_parameter(name)), f"it must step {name}, but does not")
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    resumed = copy.deepcopy(model)
    fresh = build(resumed)
    with subject.attempt("loading its state from a checkpoint, with weights_only,"):
        load_moments(fresh, torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    straight, again = step(model, optimizer, STEPS), step(resumed, fresh, STEPS)
    subject.must(
        all(torch.equal(value, again[name]) for name, value in straight.items()),
        "a resumed run must step as one that was not stopped; keep all that changes in `state`",
    )


def _small_model() -> M2D:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return M2D(PatchGrid((32, 32), (16, 16)), ViTSize(16, 1, 2), ViTSize(8, 1, 2))


def check_callback(cls: type[Callback], /, **options: Any) -> None:
    """Checks a callback: it takes all that a training tells; one with `changes` goes on as if there had been no stop.

    Weights must be the same in a process that hears nothing, as all but the main one. Raises `ComponentCheckError`.
    """
    subject = Subject.of("callback", cls, options)
    unasked = [name for name in CHANGING if getattr(cls, name) is not getattr(Callback, name)]
    never = "would never be called; set `changes = True`, if it is to change the training"
    subject.must(cls.changes or not unasked, f"{', '.join(unasked)} {never}")

    def built(step: int, folder: str, state: Mapping[str, Any] | None = None) -> Callback:
        callback: Callback = subject.build()
        if state is not None:
            with subject.attempt("loading its state from a checkpoint, with weights_only,"):
                saved = io.BytesIO()
                torch.save(state, saved)
                callback.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
        with subject.attempt("start"):
            callback.start({"name": "trial", "seed": 0, "train": {"epochs": 1.0}}, Path(folder), step)
        return callback

    with tempfile.TemporaryDirectory() as folder:
        straight, resumed, second = built(0, folder), built(0, folder), subject.build()
        models = [_small_model() for _ in range(3)]
        for step in range(1, 2 * STEPS + 1):
            score = Score("tones", "accuracy", 1.0 / step, None, (1.0 / step,), "knn")
            told = {
                "metrics": ({"step": step, "epoch": step / 4, "loss": 1.0 / step, "lr": 1e-3},),
                "checkpoint": (step, Path(folder) / f"step-{step:08d}.pt"),
                "scores": (step, [score]),
            }
            for callback, model in zip((straight, resumed, second), models, strict=True):
                with torch.no_grad(), subject.attempt("after_step"):
                    next(model.online.parameters()).add_(step)
                    callback.after_step(model, step, 2 * STEPS)
                for event, given in () if callback is second else told.items():
                    with subject.attempt(event):
                        getattr(callback, event)(*given)
            first, again, apart = (list(model.state_dict().values()) for model in models)
            reason, other, state = straight.stop(), resumed.stop(), resumed.state_dict()
            subject.must(
                reason is None or isinstance(reason, str),
                f"stop must give a text, or None, but gave {reason!r}",
            )
            subject.must(isinstance(state, dict), f"state_dict must give a dict, but gave {state!r}")
            subject.must(reason == other and all(map(torch.equal, first, again)), RESUMED)
            subject.must(all(map(torch.equal, first, apart)), APART)
            resumed = built(step, folder, state)
        with subject.attempt("end"):
            straight.end({"steps": 2 * STEPS, "total_steps": 2 * STEPS, "seconds": 1.0, "stopped_by": None})


def check_schedule(cls: type[Schedule], /, **options: Any) -> None:
    """Checks a schedule: a share of the peak at each point of the training. Raises `ComponentCheckError`."""
    subject = Subject.of("schedule", cls, options)
    schedule: Schedule = subject.build()
    for progress in torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1].tolist():
        with subject.attempt(f"share({progress:g})"):
            share = schedule.share(progress)
        subject.must(
            isinstance(share, float | int), f"share({progress:g}) must be a number, but is {share!r}"
        )
        subject.must(0.0 <= share <= 1.0, f"share({progress:g}) must be between 0 and 1, but is {share}")
