"""Runs of a few steps, without export, scores or pages: in this process, or in several of their own.

`launch` starts it as `python runs.py RECIPE OUT --steps N [KEY=VALUE]...`, under torchrun for more processes than one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor

from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.data.crops import Batch
from m2dx.data.loader import batch_loader
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Processes, join_processes, pick_device
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer

PUBLISHED = {
    "data.mean": -7.1,
    "data.std": 4.2,
    "model.depth": "null",
    "model.predictor": "{embed_dim: 512, depth: 8, num_heads: 16}",
    "model.mask_ratio": 0.7,
}
"""Recipe fields: the published sizes, and statistics, so that nothing is measured beforehand."""


@dataclass(frozen=True)
class Run:
    """A trainer with its batches, ready for steps."""

    trainer: Trainer
    batches: Iterator[Batch]

    @property
    def device(self) -> torch.device:
        return self.trainer.processes.device

    def steps(self, count: int) -> list[Tensor]:
        """Trains for `count` steps, waits for all processes and devices, and gives the losses."""
        losses = [self.trainer.train_step(self.batches)[0].losses["loss"] for _ in range(count)]
        wait(self.device)
        if self.trainer.processes.world_size > 1:
            dist.barrier()
        return losses

    def seconds(self, count: int) -> float:
        """How long so many steps take."""
        started = time.perf_counter()
        self.steps(count)
        return time.perf_counter() - started

    def weights(self) -> dict[str, Tensor]:
        """Copies of the whole weights on the CPU."""
        state = self.trainer.parallel.whole(self.trainer.model.training_state())
        return {name: value.detach().cpu().clone() for name, value in state.items() if not value.is_meta}


def wait(device: torch.device) -> None:
    """Returns when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def overrides_with(fields: Mapping[str, object], given: Sequence[str]) -> list[str]:
    """Recipe fields of a benchmark, and those given beside its options; RecipeError where both set one."""
    for key in (text.partition("=")[0] for text in given):
        if key in fields:
            raise RecipeError(f"{key} must be left to the options of this benchmark, but is given as a field")
    return [*(f"{key}={value}" for key, value in {**PUBLISHED, **fields}.items()), *given]


def start(recipe: Recipe, host: PluginHost, processes: Processes | None = None, *, held: int = 0) -> Run:
    """A run before its first step; the same clips, crops and masks each time.

    `held`: micro-batches that are read beforehand and taken in turns; 0: read while it trains.
    """
    processes = processes or Processes(0, 1, pick_device(recipe.train.device))
    quiet = Console(quiet=True)
    run = prepare(recipe, host, processes, quiet)
    pin = processes.device.type == "cuda"
    loader = batch_loader(run.crops, run.batches(), workers=0 if held else run.workers, pin_memory=pin)
    batches = cycle(list(islice(loader, held))) if held else iter(loader)
    return Run(Trainer(run, console=quiet), batches)


@dataclass(frozen=True)
class Work:
    """What a run in processes of its own does."""

    steps: int
    warmup: int = 0  # further steps before them
    held: int = 0  # micro-batches that are read beforehand
    weights: bool = False  # whether it gives the weights too


@dataclass(frozen=True)
class Done:
    """What it gives."""

    losses: list[float]
    seconds: float  # of the steps after the warm-up
    first_weights: dict[str, Tensor] = field(default_factory=dict)
    last_weights: dict[str, Tensor] = field(default_factory=dict)


def work(recipe: Recipe, host: PluginHost, processes: Processes, todo: Work) -> Done:
    """Trains for some steps; every process gets the losses and the time, and with `weights` the weights."""
    run = start(recipe, host, processes, held=todo.held)
    first = run.weights() if todo.weights else {}
    losses = run.steps(todo.warmup)
    started = time.perf_counter()
    losses += run.steps(todo.steps)
    seconds = time.perf_counter() - started
    return Done(torch.stack(losses).tolist(), seconds, first, run.weights() if todo.weights else {})


def launch(recipe: Path, out: Path, todo: Work, overrides: Sequence[str], *, processes: int) -> Done:
    """Does the work in so many processes of their own, one thread each. RuntimeError where they fail."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = [f"--{name}={int(value)}" for name, value in asdict(todo).items()]
    arguments = [str(Path(__file__)), str(recipe), str(out), *options, *overrides]
    command = [sys.executable, *(several if processes > 1 else []), *arguments]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return Done(**torch.load(out, weights_only=True))


def main() -> None:
    """The program that `launch` starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    for name in ("steps", "warmup", "held", "weights"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    host = PluginHost.discover()
    recipe = load_recipe(options.recipe, options.overrides, host=host)
    processes = join_processes(recipe.train.device)
    try:
        todo = Work(options.steps, options.warmup, options.held, bool(options.weights))
        done = work(recipe, host, processes, todo)
        if processes.is_main:
            torch.save(vars(done), options.out)
    finally:
        processes.close()


if __name__ == "__main__":
    main()
