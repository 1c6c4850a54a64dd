"""Processes that train together, started by torchrun; one process is the plain case of the same code."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore  # torch.distributed has them, untyped

from m2dx.contract.errors import RecipeError, TrainingError

logger = logging.getLogger(__name__)

_LOST = re.compile(
    r"gloo/.*(closed by peer|reset by peer|broken pipe|socket closed|timed out|timeout)",
    re.IGNORECASE | re.DOTALL,
)
"""What gloo says where another process has ended, or answers no more; it begins with the place in gloo's code."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.world_size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.world_size

    def concat(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of every process, by rank, in each of them; all give as many."""
        if self.world_size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.world_size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def gather(self, value: Any) -> list[Any]:
        """The picklable value of each process, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Any) -> Any:
        """The main process's picklable value, in every process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    @contextlib.contextmanager
    def reporting_lost_processes(self) -> Iterator[None]:
        """Inside, the end of another process is a TrainingError that says so.

        NCCL has no error for it: torch ends a process that has waited for `train.timeout_minutes`, and torchrun ends
        those of its machine at once.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world_size == 1 or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
                raise
            raise TrainingError(
                f"the {self.world_size} processes must go on together, but another has ended or does not answer "
                f"(its last lines say why; here: {str(error).splitlines()[0]}). Go on from the last checkpoint with "
                "--resume; torchrun --max-restarts N with --resume-or-begin does so by itself"
            ) from error

    def close(self) -> None:
        """Leaves the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()


def pick_device(name: str, *, field: str = "train.device") -> torch.device:
    """The device that a field of a recipe names; RecipeError where a GPU is asked for and there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RecipeError(f"{field} is {name}, but torch sees no GPU; set {field}=auto or cpu")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise RecipeError(f"{field} is {name}, but torch sees {torch.cuda.device_count()} GPU(s)")
    return device


def join_processes(device_name: str, *, timeout_minutes: float = 30.0) -> Processes:
    """Joins the processes that torchrun started (gloo on the CPU, NCCL on GPUs), or is alone without it.

    `timeout_minutes` is how long one waits for the others, such as for the main one while that measures the data.
    RecipeError where the recipe names one GPU for several processes, each of which needs its own.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1 and device_name.startswith("cuda:"):
        raise RecipeError(
            f"train.device must be cuda or auto with {world_size} processes, each of which takes a GPU of its own, "
            f"but is {device_name}; choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    device = pick_device(device_name)
    if world_size == 1:
        return Processes(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = timedelta(minutes=timeout_minutes)
        store = _store_of_this_start(timeout)
        if store is None:
            dist.init_process_group(backend, timeout=timeout)
        else:
            rank = int(os.environ["RANK"])
            dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world_size)
    return Processes(dist.get_rank(), world_size, device)


def _store_of_this_start(timeout: timedelta) -> Store | None:
    """Where processes that torchrun has started again find each other; None: where torch would look by itself.

    By default torchrun's processes share a store with it (torch 2.11), in which those of the next start would find, and
    try, the addresses of those that are dead. On one machine the number of the start keeps them apart. On several it
    need not be the same, so the main process warns; there the variable below gives each start a store of its own.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not shared or os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return None
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        if os.environ["RANK"] == "0":
            logger.warning(
                "torchrun's --max-restarts on several machines needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the "
                "environment of each torchrun; without it, processes that are started again may not find each other"
            )
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, int(os.environ["WORLD_SIZE"]), is_master=False, timeout=timeout)
    return PrefixStore(f"start-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
