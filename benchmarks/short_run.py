"""The first steps of a recipe, without export, scores or pages: in this process, or in several under torchrun.

agreement.py and scaling.py start it as `python short_run.py RECIPE OUT --steps N [KEY=VALUE]...`; OUT gets losses, time
and, with --weights, the weights.
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
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor

from m2dx.contract.host import PluginHost
from m2dx.data.crops import Batch
from m2dx.data.loader import training_loader
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Processes, join_processes
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer


@dataclass(frozen=True)
class ShortRun:
    """What the steps gave."""

    losses: list[float]
    seconds: float  # of the steps that were timed
    device: str
    weights: dict[str, Tensor] = field(default_factory=dict)
    start: dict[str, Tensor] = field(default_factory=dict)  # the weights before the first step


@dataclass(frozen=True)
class Work:
    """What to do."""

    steps: int
    warmup: int = 0  # further steps before them
    held: int = 0  # micro-batches that are read beforehand, and taken in turns; 0: read while it trains
    weights: bool = False


def run(recipe: Recipe, host: PluginHost, processes: Processes, work: Work) -> ShortRun:
    """Trains for some steps; every process gets the losses and the time, the main one the weights."""
    quiet = Console(quiet=True)
    trainer = Trainer(prepare(recipe, host, processes, quiet), console=quiet)
    start = weights_of(trainer) if work.weights else {}
    batches = batches_of(trainer, work)
    losses = [trainer.train_step(batches)[0].losses["loss"] for _ in range(work.warmup)]
    wait(processes)
    began = time.perf_counter()
    losses += [trainer.train_step(batches)[0].losses["loss"] for _ in range(work.steps)]
    wait(processes)
    seconds = time.perf_counter() - began
    weights = weights_of(trainer) if work.weights else {}
    return ShortRun(torch.stack(losses).tolist(), seconds, device_name(processes), weights, start)


def batches_of(trainer: Trainer, work: Work) -> Iterator[Batch]:
    """Micro-batches of this process."""
    pin = trainer.processes.device.type == "cuda"
    workers = 0 if work.held else trainer.run.workers
    loader = training_loader(trainer.run.crops, trainer.run.batches(), workers=workers, pin_memory=pin)
    return cycle(list(islice(loader, work.held))) if work.held else iter(loader)


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of the whole weights on the CPU."""
    state = trainer.parallel.whole(trainer.model.training_state())
    return {name: value.detach().cpu().clone() for name, value in state.items() if not value.is_meta}


def wait(processes: Processes) -> None:
    """Returns when all processes are here and their devices are idle."""
    if processes.device.type == "cuda":
        torch.cuda.synchronize(processes.device)
    if processes.world_size > 1:
        dist.barrier()


def device_name(processes: Processes) -> str:
    """The GPU's name, or CPU."""
    device = processes.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def launch(
    recipe: Path, out: Path, work: Work, overrides: Sequence[str], *, processes: int
) -> Mapping[str, Any]:
    """Does the work in so many processes of their own, and reads what they wrote.

    RuntimeError with their last lines where they fail.
    """
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = [f"--{name}={int(value)}" for name, value in asdict(work).items()]
    arguments = [str(Path(__file__)), str(recipe), str(out), *options, *overrides]
    command = [sys.executable, *(several if processes > 1 else []), *arguments]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found: Mapping[str, Any] = torch.load(out, weights_only=True)
    return found


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
        work = Work(options.steps, options.warmup, options.held, bool(options.weights))
        found = run(recipe, host, processes, work)
        if processes.is_main:
            torch.save(vars(found), options.out)
    finally:
        processes.close()


if __name__ == "__main__":
    main()
