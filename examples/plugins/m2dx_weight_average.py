"""A moving average of the weights, and an early stop by the scores of a probe, as a plugin of m2dx.

train: {callbacks: {average: {name: weight_average, decay: 0.999}, stop: {name: early_stop, patience: 3}}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt

import m2dx

OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class WeightAverage(m2dx.Callback):
    """Averages the weights of the encoder over the steps; after the last one of the recipe it stands in their place.

    Options:
        decay: of the moving average, for each step
        start: share of the steps after which it begins
    """

    name = "weight_average"
    changes = True

    def __init__(self, *, decay: OpenFraction = 0.999, start: OpenFraction = 0.5) -> None:
        self.decay, self.first = decay, start
        self.average: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def after_step(self, model: m2dx.MaskedModel, step: int, total_steps: int) -> None:
        if step < self.first * total_steps:
            return
        for name, weight in model.online.named_parameters():
            average = self.average.setdefault(name, weight.detach().clone())
            self.average[name] = average.to(weight.device).lerp(weight, 1.0 - self.decay)
            if step == total_steps:
                weight.copy_(self.average[name])

    def state_dict(self) -> dict[str, Any]:
        return dict(self.average)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average = dict(state)


class EarlyStop(m2dx.Callback):
    """Ends the training, which waits for the scores of `evaluation.every`, where their mean gets no better.

    Options:
        patience: scored checkpoints without a better mean
    """

    name = "early_stop"
    changes = True

    def __init__(self, *, patience: PositiveInt = 3) -> None:
        self.patience, self.means = patience, list[float]()

    def scores(self, step: int, scores: Sequence[m2dx.Score]) -> None:
        self.means.append(sum(score.mean for score in scores) / len(scores))

    def stop(self) -> str | None:
        since = len(self.means) - 1 - self.means.index(max(self.means)) if self.means else 0
        return f"no better score in {since} checkpoints" if since >= self.patience else None

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.means = list(state["means"])


@m2dx.hookimpl
def callbacks() -> list[type]:
    return [WeightAverage, EarlyStop]
