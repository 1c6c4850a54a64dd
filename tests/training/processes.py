"""Runs under torchrun: trains recipes one after another in the same processes, and writes what they sent each other.

The argument is a JSON file: a list of jobs, {"recipe": file, "resume": bool, "stop": step or null}.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from shared_plugins import registered, with_probe

from m2dx.contract.errors import TrainingError
from m2dx.contract.host import PluginHost
from m2dx.jobs.train import make_trainer
from m2dx.recipe.loading import load_recipe
from m2dx.training.distributed import DataParallel, FullyShardedDataParallel, Processes, join_processes
from m2dx.training.run_folder import start_run_folder
from m2dx.training.trainer import Trainer


class Traffic:
    """Counts what the processes send: gradients of DDP in values, FSDP's in calls."""

    def __init__(self) -> None:
        self.ddp_values = self.reduce_scatters = self.all_reduces = 0
        name = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
        self._reduce_scatter, self._all_reduce = getattr(dist, name), dist.all_reduce
        setattr(dist, name, self.reduce_scatter)  # FSDP's call since torch 2.14, or before
        dist.all_reduce = self.all_reduce

    def bucket(self, group: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """DDP's own reduction of a bucket of gradients, counted."""
        self.ddp_values += bucket.buffer().numel()
        work = self._all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    def reduce_scatter(self, *args: Any, **options: Any) -> Any:
        self.reduce_scatters += 1
        return self._reduce_scatter(*args, **options)

    def all_reduce(self, *args: Any, **options: Any) -> Any:
        self.all_reduces += 1
        return self._all_reduce(*args, **options)

    def counts(self, trainer: Trainer, steps: int) -> dict[str, float]:
        trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        return {
            "gradients sent per step": self.ddp_values / steps / trained,
            "reduce_scatter per step": self.reduce_scatters / steps,
            "all_reduce per step": self.all_reduces / steps,
        }


def stop_before(step: int | None, processes: Processes) -> None:
    """One process is asked to stop when this many steps are done."""

    def stopping(self: Trainer, batches: Any) -> Any:
        if step is not None and self.step == step - 1 and processes.rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return train_step(self, batches)

    Trainer.train_step = stopping  # type: ignore[method-assign]


def run(job: dict[str, Any], processes: Processes) -> dict[str, Any]:
    """Trains one recipe; its traffic, and how the model was shared."""
    stop_before(job["stop"], processes)
    recipe = load_recipe(job["recipe"], host=host)
    trainer = with_probe(make_trainer(recipe, host, processes, Console(quiet=True), resume=job["resume"]))
    if processes.is_main:
        start_run_folder(trainer.recipe, resume=job["resume"])
    traffic, start = Traffic(), trainer.step
    if isinstance(trainer.parallel, DataParallel):
        trainer.parallel.forward.register_comm_hook(None, traffic.bucket)  # type: ignore[operator]
    try:
        summary = trainer.fit()
    except TrainingError as error:
        return {"error": str(error)}
    sharded = isinstance(trainer.parallel, FullyShardedDataParallel)
    own = sum(getattr(p, "_local_tensor", p).numel() for p in trainer.model.masked_model.parameters())
    whole = sum(p.numel() for p in trainer.model.masked_model.parameters())
    return {
        "sharded": sharded,
        "share of weights": own / whole,
        "steps": summary.steps,
        "stopped_by": summary.stopped_by,
        "bad_files": summary.bad_files,
        **traffic.counts(trainer, summary.steps - start),
    }


host = registered(PluginHost.discover())
jobs = json.loads(Path(sys.argv[1]).read_text())
train_step = Trainer.train_step
processes = join_processes("cpu", timeout_minutes=2)
found = [run(job, processes) for job in jobs]
Path(f"{sys.argv[1]}.{processes.rank}").write_text(json.dumps(found))
processes.close()
