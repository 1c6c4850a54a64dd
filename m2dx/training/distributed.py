"""Processes that train together, and how they share a model; one process is the plain case of the same code."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from m2dx.contract.errors import RecipeError, TrainingError
from m2dx.model.multitask import MultiTask
from m2dx.recipe.schema import TrainSection

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
        return self.gather(value)[0]

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
        """Leaves the process group, of which cycles of objects that are out of use let go before.

        A thread of gloo that outlives Python may ask for its lock, which aborts the process (pytorch issue 190489).
        """
        if dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()


def pick_device(name: str, *, field: str = "train.device") -> torch.device:
    """The device that a field of a recipe names; RecipeError where it is a GPU that is not there, or is taken."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RecipeError(f"{field} must be auto, cpu, cuda, cuda:N or mps, but is {name!r}") from None
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RecipeError(f"{field} is {name}, but torch sees no GPU of a Mac; set {field}=auto or cpu")
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise RecipeError(f"{field} is {name}, but torch sees no GPU; set {field}=auto or cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise RecipeError(f"{field} is {name}, but torch sees {torch.cuda.device_count()} GPU(s)")
    if device.index is not None or os.environ.get("WORLD_SIZE", "1") == "1":
        try:
            torch.empty(1, device=device)
        except RuntimeError as error:
            raise RecipeError(
                f"{field} is {name}, but that GPU cannot be used ({str(error).partition(chr(10))[0]}); wait for it, or "
                "choose another (CUDA_VISIBLE_DEVICES=1, 2 ...)"
            ) from error
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
    if device.type == "mps":
        raise RecipeError(f"train.device must be cpu or cuda with {world_size} processes, but is mps")
    if device.type == "cuda":
        device = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = timedelta(minutes=timeout_minutes)
        place: dict[str, Any] = {}
        if (store := _store_of_this_start(timeout)) is not None:
            place = {"store": store, "rank": int(os.environ["RANK"]), "world_size": world_size}
        dist.init_process_group(backend, timeout=timeout, **place)
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


class Parallel:
    """The model of one process alone, and what is asked of the ways in which several share one."""

    def __init__(self, model: MultiTask) -> None:
        self.model = model
        self.forward: nn.Module = model
        """What the batch goes through, so that gradients meet in the backward pass."""

    def accumulation(self, *, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward pass of an accumulation step: only the last one's gradients meet."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Lets go of what holds the process group; there is no training after it."""

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state for a checkpoint, in which every tensor is whole; every process has to ask for it."""
        return state

    def own_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What this process has of the model's state that `whole` gave."""
        return state

    def own_moments(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """What this process has of an optimizer's state that `whole` gave."""
        return state


class DataParallel(Parallel):
    """A replica of the model for each process; gradients are averaged (DDP)."""

    def __init__(self, model: MultiTask, processes: Processes) -> None:
        super().__init__(model)
        self.processes = processes
        self.forward = self._ddp = DistributedDataParallel(model, broadcast_buffers=False)

    def accumulation(self, *, last: bool) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if last else self._ddp.no_sync()

    def close(self) -> None:
        """Where DDP is the last to hold a group of gloo, the process may hang when DDP goes.

        It then waits, with Python's lock, for a thread of gloo that needs the lock to let go of its last tensors
        (torch 2.11; pytorch issue 56297). The group's own handle, which goes after this, waits without the lock.
        """
        self.forward = self.model
        del self._ddp

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state as it is; TrainingError, in every process, where the weights of the replicas are not the same."""
        names, weights = zip(*self.model.named_parameters(), strict=True)
        norms = self.processes.concat(torch.stack([weight.detach().norm() for weight in weights])[None])
        apart = ~norms.isclose(norms[0], rtol=1e-4, equal_nan=True).all(dim=0)  # GPUs of two kinds may round
        if apart.any():
            raise TrainingError(
                f"all {len(norms)} processes must have the same weights, but {names[int(apart.nonzero()[0])]} differs; "
                "let what a plugin does after a step be the same in each: the main process alone hears metrics and "
                "scores, and each has its own generator of torch"
            )
        return state


class FullyShardedDataParallel(Parallel):
    """Each process keeps a part of every trained weight, its gradient and moments, and of the target network (FSDP2).

    A transformer block's weights are gathered when it computes, and freed afterwards; what is outside of the blocks
    stays together through forward and backward pass. Frozen offline encoders are whole in each process: they may
    compute anywhere, and have neither gradients nor moments. Weights and gradients travel in float32, so that autocast
    computes the same as with a replica for each process.
    """

    def __init__(self, model: MultiTask, processes: Processes) -> None:
        super().__init__(model)
        self.is_main = processes.is_main
        rebuilt = (model.views, *model.offline_encoders)
        frozen = {parameter for part in rebuilt for parameter in part.parameters()}
        scalars = [name for name, value in model.named_parameters() if not value.ndim and value not in frozen]
        if scalars:
            raise RecipeError(
                f"train.sharding fsdp needs weights of at least one dimension, but {', '.join(scalars)} has none; make "
                "it of the shape (1,), or set train.sharding=none"
            )
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), src=0)
        mesh = init_device_mesh(processes.device.type, (processes.world_size,))
        stacks = _stacks(model)
        for block in chain.from_iterable(stacks):
            fully_shard(block, mesh=mesh)
        self._sharded = fully_shard(model, mesh=mesh, ignored_params=frozen)
        # By itself FSDP's backward pass gathers what computed before a transformer's first block: the target's last
        # block, which has no backward pass. It is to be the last one of the trained transformer before it.
        trained = [blocks for blocks in stacks if any(p.requires_grad for p in blocks[0].parameters())]
        for before, after in pairwise(trained):
            after[0].set_modules_to_backward_prefetch([before[-1]])  # type: ignore[operator]

    def accumulation(self, *, last: bool) -> AbstractContextManager[None]:
        self._sharded.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """On the CPU of the main process; the others take part, and get tensors without values."""

        def gathered(shard: Tensor) -> Tensor:
            assert isinstance(shard, DTensor)
            full = shard.full_tensor()
            return full.cpu() if self.is_main else full.to("meta")

        gathered_state: dict[str, Any] = tree_map_only(DTensor, gathered, state)
        return gathered_state

    def own_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        shards = self.model.state_dict()
        return {name: _shard_like(value, shards.get(name)) for name, value in state.items()}

    def own_moments(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if any(number >= len(parameters) for number in state["state"]):
            raise ValueError("the checkpoint has moments of more weights than are trained")
        moments = {
            number: {name: _shard_like(value, parameters[number]) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        return {**state, "state": moments}


def share_model(model: MultiTask, train: TrainSection, processes: Processes) -> Parallel:
    """The model, on its device, as the recipe has the processes share it, and compiled if it says so.

    One process has nothing to share, whatever `train.sharding` is.
    """
    sharded = train.sharding == "fsdp" and processes.world_size > 1
    if train.compile and sharded:
        # What gathers and frees a block's weights stays outside of what is compiled.
        for block in chain.from_iterable(_stacks(model)):
            block.compile()
    elif train.compile:
        for transformer in model.masked_model.transformers():
            transformer.compile()
    if sharded:
        return FullyShardedDataParallel(model, processes)
    return DataParallel(model, processes) if processes.world_size > 1 else Parallel(model)


def _stacks(model: MultiTask) -> list[list[nn.Module]]:
    """The blocks of each of the method's transformers, in the order of the forward pass."""
    return [list(transformer.blocks) for transformer in model.masked_model.transformers()]  # type: ignore[arg-type]


def _shard_like(value: Any, like: Tensor | None) -> Any:
    """The own part of a whole tensor, where it has the shape of a parameter; anything else as it is."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    on_device = value.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)
