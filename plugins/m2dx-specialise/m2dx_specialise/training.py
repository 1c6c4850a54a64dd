"""Candidates in training: a short trial that says what a step costs, and whole runs that can be resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

import m2dx
from m2dx.encoder.weights import export_encoder
from m2dx.jobs.train import make_trainer, record_run
from m2dx.recipe.loading import recipe_from_mapping
from m2dx.results.provenance import describe_data
from m2dx.training.distributed import Processes, pick_device
from m2dx.training.monitor import TrainingSummary
from m2dx.training.run_folder import running_alone, start_run_folder

TRIAL_STEPS, TRIAL_WINDOW = 12, 4  # steps of a trial; those of its end are timed
QUIET = Console(quiet=True)


class Stopped(Exception):
    """A signal stopped the search; what it has found is saved."""

    def __init__(self, signal: str) -> None:
        super().__init__(signal)
        self.signal = signal


def _fit(
    recipe: Mapping[str, Any], host: m2dx.PluginHost, console: Console, *, steps: int | None = None
) -> tuple[TrainingSummary, m2dx.Trainer]:
    """Trains in the run's folder, from its newest checkpoint where there is one; to the end, or a number of steps."""
    loaded = recipe_from_mapping(recipe, host=host, source=f"the recipe {recipe['name']}")
    with running_alone(loaded.output / loaded.name):
        processes = Processes(0, 1, pick_device(loaded.train.device))
        trainer = make_trainer(loaded, host, processes, QUIET, resume="or_start")
        start_run_folder(trainer.run.recipe, resume=trainer.resumed)
        trainer.console, trainer.total_steps = console, steps or trainer.total_steps
        data = describe_data(trainer.run.recipe, host)
        summary = trainer.fit()
        record_run(trainer, summary, data, QUIET)
    if summary.stopped_by is not None:
        raise Stopped(summary.stopped_by)
    return summary, trainer


def trial(recipe: Mapping[str, Any], host: m2dx.PluginHost) -> dict[str, float]:
    """Seconds of a step, and mean and standard deviation of the data's log-mels; leaves no files.

    Raises the errors of training, and `Stopped`.
    """
    folder = Path(recipe["output"]) / recipe["name"]
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was killed
    train = recipe["train"] | {"log_every": TRIAL_WINDOW, "rankme_every": 1000, "checkpoint_every": 1000}
    try:
        summary, trainer = _fit({**recipe, "train": train}, host, QUIET, steps=TRIAL_STEPS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    data, speed = trainer.run.recipe.data, summary.last_metrics["clips_per_second"]
    assert data.mean is not None and data.std is not None
    return {"seconds": train["batch_size"] / speed, "mean": data.mean, "std": data.std}


def train(recipe: Mapping[str, Any], host: m2dx.PluginHost, console: Console) -> float:
    """Trains a recipe to its end, or on from where a stop has left it; the seconds of its steps.

    Raises the errors of training, and `Stopped`.
    """
    folder = Path(recipe["output"]) / recipe["name"]
    encoder = folder / "encoder"
    if not (encoder / "config.json").exists():  # which an export writes last
        _fit(recipe, host, console)
        export_encoder(folder, encoder, overwrite=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # from here on the export is enough
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return round(float(summary["seconds"]), 2)
