"""What a checkpoint holds of a run: taken from a trainer, and given back to one.

The file is the same however many processes train, and however they share the model.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

import m2dx
from m2dx.errors import CheckpointError, RecipeError
from m2dx.memory.shortage import is_shortage
from m2dx.recipe.loading import recipe_to_mapping
from m2dx.training.checkpoint import Checkpoint
from m2dx.training.monitor import CollapseAlarm
from m2dx.training.optim import load_moments
from m2dx.weights import CHECKPOINT_FORMAT

if TYPE_CHECKING:
    from m2dx.training.trainer import Trainer

logger = logging.getLogger(__name__)


def run_state(trainer: Trainer) -> dict[str, Any]:
    """The state after a trainer's last step; every process has to ask for it, that of the main one is whole."""
    parallel = trainer.parallel
    return {
        "format": CHECKPOINT_FORMAT,
        "version": 1,
        "m2dx_version": m2dx.__version__,
        "step": trainer.step,
        "recipe": recipe_to_mapping(trainer.recipe),
        "statistics": vars(trainer.run.statistics),
        "label_names": {name: list(labels) for name, labels in trainer.run.clips.label_names.items()},
        "model": parallel.whole(trainer.model.training_state()),
        "optimizer": parallel.whole(trainer.optimizer.state_dict()),
        "scaler": trainer.scaler.state_dict(),
        "pending": trainer.watch.pending(),
        "rankme": trainer.watch.rankme,
        "totals": {
            "clips": trainer.clips,
            "seconds": trainer.seconds,
            "collapse_warnings": trainer.alarm.count,
        },
        "rng": trainer.processes.gather(torch.get_rng_state()),
        "bad_files": trainer.bad_files.ledger.state_dict(),
    }


def load_weights(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Gives a trainer the step and the weights of a checkpoint, before its processes share the model.

    RecipeError where the run is past its end, CheckpointError where the weights do not fit.
    """
    with _fitting(checkpoint):
        trainer.step = int(checkpoint.state["step"])
        if trainer.step > trainer.total_steps:
            raise RecipeError(
                f"the run must not be past its end, but its checkpoint is of step {trainer.step}, and train.epochs "
                f"{trainer.recipe.train.epochs:g} ends at step {trainer.total_steps}; set train.epochs to at least "
                f"{trainer.step / trainer.batches.steps_per_epoch:g}"
            )
        trainer.model.load_training_state(checkpoint.state["model"])


def load_run_state(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Gives a trainer all else of a checkpoint; CheckpointError where it does not fit."""
    state, processes = checkpoint.state, trainer.processes
    with _fitting(checkpoint):
        load_moments(trainer.optimizer, trainer.parallel.of_own(state["optimizer"], trainer.optimizer))
        trainer.scaler.load_state_dict(state["scaler"])
        if state["recipe"]["tasks"].keys() == trainer.recipe.tasks.keys():
            trainer.watch.restore(state["pending"], step=trainer.step, device=processes.device)
    trainer.watch.rankme = state.get("rankme")
    totals = state.get("totals", {})  # older checkpoints have none
    trainer.clips = totals.get("clips", trainer.step * trainer.recipe.train.batch_size)
    trainer.seconds_before = totals.get("seconds", 0.0)
    trainer.alarm = CollapseAlarm(totals.get("collapse_warnings", 0))
    if len(state["rng"]) == processes.world_size:
        torch.set_rng_state(state["rng"][processes.rank])
    elif processes.is_main:
        logger.warning(
            "%d processes now, %d before: torch's own random state starts anew",
            processes.world_size,
            len(state["rng"]),
        )
    trainer.bad_files.ledger.load_state_dict(state["bad_files"])
    if processes.is_main:
        trainer.console.print(f"resuming from step {trainer.step} ({checkpoint.path})")


@contextlib.contextmanager
def _fitting(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, KeyError, ValueError) as error:
        if is_shortage(error):
            raise
        raise CheckpointError(f"{checkpoint.path}: does not fit the recipe: {error}") from error
