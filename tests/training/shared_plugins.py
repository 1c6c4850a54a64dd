"""What test_shared_model.py and its processes bring to a training: examples, a probe, a callback with a fault."""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import m2dx
from m2dx.training.trainer import Trainer

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
NAMES = ("augment", "dispersion", "isotropy", "microphones", "muon", "rooms", "watch", "weight_average")


class Listener(m2dx.Callback):
    """Changes the weights by what it has heard, which the main process alone hears."""

    name = "listener"
    changes = True
    heard = 0

    def metrics(self, line: Mapping[str, float]) -> None:
        self.heard += 1

    @torch.no_grad()
    def after_step(self, model: m2dx.MaskedModel, step: int, total_steps: int) -> None:
        if self.heard == 1:
            next(model.online.parameters()).mul_(1.01)


@m2dx.hookimpl
def callbacks() -> list[type]:
    return [Listener]


def registered(host: m2dx.PluginHost) -> m2dx.PluginHost:
    """The host, with the examples that the runs have, and the callback above."""
    sys.path.append(str(EXAMPLES))
    for name in NAMES:
        host.register(name, import_module(f"m2dx_{name}"))
    host.register("listener", sys.modules[__name__])
    return host


class Probe:
    """Stands for the scores of checkpoints, which get worse; each comes when the training has waited for it."""

    failed = 0

    def __init__(self, trainer: Trainer) -> None:
        self.notify, self.polls = trainer.callbacks.notify, 0
        again = trainer.step and trainer.step % (trainer.recipe.evaluation.every or 1) == 0
        self.waiting = [trainer.step] if again else list[int]()

    def take(self, step: int) -> None:
        self.waiting.append(step)

    def poll(self) -> None:
        self.polls += 1
        if self.waiting and self.polls % 2 == 0:
            step = self.waiting.pop(0)
            self.notify("scores", step, [m2dx.Score("notes", "accuracy", 1 / step, None, (), "knn")])


def with_probe(trainer: Trainer) -> Any:
    """The trainer, with a probe in the main process where its recipe has its checkpoints scored."""
    if trainer.processes.is_main and trainer.recipe.evaluation.every is not None:
        trainer.scoring = Probe(trainer)
    return trainer
