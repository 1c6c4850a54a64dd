"""The callbacks of a run: those that only listen cannot change its numbers or end it, the others are part of it."""

from __future__ import annotations

import copy
import io
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from m2dx.contract.components import Callback, MaskedModel
from m2dx.contract.errors import PluginError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.contract.wording import problem_of
from m2dx.recipe.schema import TrainSection
from m2dx.training.distributed import Processes

logger = logging.getLogger(__name__)


class Callbacks:
    """By their names in the recipe. The main process tells them what happens; the others have those that change it."""

    def __init__(self, train: TrainSection, host: PluginHost, processes: Processes) -> None:
        """RecipeError for one that changes the training of several processes with shards of the weights."""
        self._all: dict[str, Callback] = {
            name: host.build("callback", spec) for name, spec in train.callbacks.items()
        }
        self.changing = {name: callback for name, callback in self._all.items() if callback.changes}
        self._is_main, self.failed = processes.is_main, 0
        if self.changing and train.sharding == "fsdp" and processes.world_size > 1:
            raise RecipeError(
                f"train.callbacks.{min(self.changing)} changes the training, so that each process must have the whole "
                "model, but train.sharding is fsdp; set train.sharding=none, or leave the callback out"
            )

    def notify(self, event: str, *arguments: object) -> None:
        """Calls the method `event` of each in the main process, with copies of the arguments."""
        for name, callback in self._all.items() if self._is_main else ():
            if callback.changes:
                self._call(name, event, *copy.deepcopy(arguments))
                continue
            with _same_randomness():
                try:
                    getattr(callback, event)(*copy.deepcopy(arguments))
                except (Exception, SystemExit) as error:
                    self.failed += 1
                    if str(self.failed).strip("0") == "1":  # 1, 10, 100, ...
                        text = "train.callbacks.%s: %s failed: %s. Training goes on (%d calls have failed)"
                        logger.warning(text, name, event, problem_of(error), self.failed)

    def after_step(self, model: MaskedModel, step: int, total_steps: int) -> None:
        """What those that change the training do after a step, in each process."""
        for name in self.changing:
            self._call(name, "after_step", model, step, total_steps)

    @property
    def wait_for_scores(self) -> bool:
        """Whether the training waits for the scores of a checkpoint, so that it ends at the same step when resumed."""
        return any(type(callback).scores is not Callback.scores for callback in self.changing.values())

    def stop(self) -> str | None:
        """Why the training is to end now, and who says so; None: it goes on."""
        reasons = ((name, self._call(name, "stop")) for name in self.changing)
        return next((f"train.callbacks.{name}: {reason}" for name, reason in reasons if reason), None)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; PluginError where it could not, or could not be read again."""
        states = {name: self._call(name, "state_dict") for name in self.changing}
        for name, state in states.items():
            with PluginError.blaming(f"train.callbacks.{name}: state_dict must give tensors and plain data"):
                if not isinstance(state, dict):
                    raise ValueError(f"it must be a dict, but is {state!r}")
                file = io.BytesIO()
                torch.save(tree_map_only(torch.Tensor, lambda _: torch.empty(0), state), file)
                torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        return states

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave; those that a checkpoint does not know start anew, with a warning."""
        for name in self.changing:
            if name in states:
                self._call(name, "load_state_dict", states[name])
            else:
                logger.warning("train.callbacks.%s starts anew: the checkpoint has nothing of it", name)

    def _call(self, name: str, method: str, *arguments: object) -> Any:
        with PluginError.blaming(f"train.callbacks.{name}: {method} failed"):
            return getattr(self._all[name], method)(*arguments)


@contextmanager
def _same_randomness() -> Iterator[None]:
    """After it, the global generators of torch, numpy and Python are as they were."""
    legacy, python = np.random.get_state(), random.getstate()  # noqa: NPY002  what is kept
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(legacy)  # noqa: NPY002
            random.setstate(python)
