"""A step reads nothing back from the device, so that a GPU never waits for the CPU between lines of metrics."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from m2dx.data.loader import batch_loader
from m2dx.recipe.schema import Recipe
from m2dx.training.trainer import Trainer


class Reads(TorchDispatchMode):
    """Counts the numbers that are read out of tensors (`item`, `float`, `if tensor`)."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_read_is_counted() -> None:
    with Reads() as reads:
        assert bool(torch.ones(()) > 0)
        torch.ones(()).item()
    assert reads.count == 2


# A CPU reads the norm to see whether it clips (its tensors are at hand), so this is without clipping.
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_reads_nothing(
    tiny_recipe: Callable[..., Recipe], make_trainer: Callable[..., Trainer], precision: str
) -> None:
    recipe = tiny_recipe(
        "train.accumulate=2",
        "train.clip_norm=null",
        f"train.precision={precision}",
        "noise.mean=-6",
        labels=True,
        noise=True,
    )
    trainer = make_trainer(recipe)
    loader = batch_loader(trainer.run.crops, trainer.run.batches(), workers=0, pin_memory=False)
    batches = iter(list(islice(loader, 4)))  # loaded beforehand: that is the CPU's work on any device
    with Reads() as reads:
        trainer.train_step(batches)
        trainer.train_step(batches)
    assert trainer.step == 2
    assert reads.count == 0
