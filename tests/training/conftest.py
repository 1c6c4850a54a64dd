"""Runs a recipe's training in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from m2dx.contract.host import PluginHost
from m2dx.jobs.train import make_trainer as make_trainer_of
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Processes
from m2dx.training.run_folder import Resume, start_run_folder
from m2dx.training.trainer import Trainer


@pytest.fixture
def make_trainer(host: PluginHost, console: Console) -> Callable[..., Trainer]:
    """A trainer that is ready to go, as the command line makes it."""

    def make(recipe: Recipe, *, resume: Resume = False, with_host: PluginHost | None = None) -> Trainer:
        processes = Processes(0, 1, torch.device("cpu"))
        trainer = make_trainer_of(recipe, with_host or host, processes, console, resume=resume)
        start_run_folder(trainer.recipe, resume=trainer.resumed)
        return trainer

    return make


@pytest.fixture
def read_metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl, without what depends on the clock."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in ("time", "clips_per_second")} for line in lines]

    return read
