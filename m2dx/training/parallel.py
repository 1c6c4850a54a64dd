"""How the processes of a run share its model: a replica for each (DDP), or shards (FSDP2); one process has it whole."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from m2dx.contract.errors import RecipeError
from m2dx.model.multitask import MultiTask, Task
from m2dx.recipe.schema import TrainSection
from m2dx.training.distributed import Processes


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

    def __init__(self, model: MultiTask) -> None:
        super().__init__(model)
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
        tasks = [task for task in model.tasks.values() if isinstance(task, Task)]
        frozen = {parameter for task in tasks for parameter in task.offline_encoder.parameters()}
        scalars = [
            name for name, value in model.named_parameters() if value.ndim == 0 and value not in frozen
        ]
        if scalars:
            raise RecipeError(
                f"train.sharding fsdp needs weights of at least one dimension, but {', '.join(scalars)} has none; make "
                "it of the shape (1,), or set train.sharding=none"
            )
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), src=0)
        mesh = init_device_mesh(processes.device.type, (processes.world_size,))
        for block in _blocks(model):
            fully_shard(block, mesh=mesh)
        self._sharded = fully_shard(model, mesh=mesh, ignored_params=frozen)
        _prefetch(model)

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
        for block in _blocks(model):
            block.compile()
    elif train.compile:
        for transformer in model.masked_model.transformers():
            transformer.compile()
    if sharded:
        return FullyShardedDataParallel(model, processes)
    return DataParallel(model) if processes.world_size > 1 else Parallel(model)


def _blocks(model: MultiTask) -> list[nn.Module]:
    """Every transformer block, in the order of the forward pass."""
    return [block for blocks in _stacks(model) for block in blocks]


def _stacks(model: MultiTask) -> list[list[nn.Module]]:
    """The blocks of each of the method's transformers."""
    return [list(transformer.blocks) for transformer in model.masked_model.transformers()]  # type: ignore[arg-type]


def _prefetch(model: MultiTask) -> None:
    """Has the backward pass go on from a transformer's first block to the last one of the trained one before it.

    By itself FSDP gathers what computed before: the target's last block, which has no backward pass.
    """
    trained = [blocks for blocks in _stacks(model) if any(p.requires_grad for p in blocks[0].parameters())]
    for before, after in pairwise(trained):
        after[0].set_modules_to_backward_prefetch([before[-1]])  # type: ignore[operator]


def _shard_like(value: Any, like: Tensor | None) -> Any:
    """The own part of a whole tensor, where it has the shape of a parameter; anything else as it is."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    on_device = value.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)
