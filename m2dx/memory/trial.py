"""The process that trains for two steps on made-up clips, and tells what memory that took.

    python -m m2dx.memory.trial RESULT < REQUEST

REQUEST is JSON (`Request`), RESULT the file to write. A process of its own: where memory runs out, this one ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m2dx.audio.crops import Batch
    from m2dx.plugins import PluginHost
    from m2dx.recipe.schema import Recipe
    from m2dx.training.trainer import Trainer


@dataclass(frozen=True)
class Request:
    """What to try."""

    recipe: dict[str, Any]  # as recipe_to_mapping gives it
    labels: dict[str, list[str]]
    clips: int  # of one pass
    accumulate: bool  # whether gradients of earlier passes are there
    device: str
    free: int = 0  # of a GPU before this process was there, bytes


def run_trial(request: Request, host: PluginHost) -> dict[str, Any]:
    """Two steps: one of one clip a pass, after which the optimizer has its state, and the one that is measured."""
    import torch

    from m2dx.memory.limits import forget_peak, resident_bytes
    from m2dx.memory.shortage import is_shortage
    from m2dx.recipe.loading import recipe_from_mapping

    recipe = recipe_from_mapping(request.recipe, host=host, source="the recipe")
    device = torch.device(request.device)
    on_gpu = device.type == "cuda"

    def used() -> int:
        return torch.cuda.memory_allocated(device) if on_gpu else resident_bytes()

    found: dict[str, Any] = {}
    if on_gpu:
        torch.zeros(1, device=device)
        context = request.free - torch.cuda.mem_get_info(device)[0] - torch.cuda.memory_reserved(device)
        found["context"] = max(context, 0)
    program = found["program"] = used()
    try:
        trainer, one, many = _trainer(recipe, request, host)
        network = used()
        found["network"] = network - program
        passes = trainer.recipe.train.backward_passes
        trainer.train_step(iter([one] * passes))
        found["state"] = used() - network
        (torch.cuda.reset_peak_memory_stats(device) if on_gpu else forget_peak())
        started = time.perf_counter()
        trainer.train_step(iter([*[one] * (passes - 1), many]))
        if on_gpu:
            torch.cuda.synchronize(device)
        found["seconds"] = time.perf_counter() - started
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        found["problem"] = "out of memory"
    found["peak"] = torch.cuda.max_memory_allocated(device) if on_gpu else resident_bytes(peak=True)
    if on_gpu:
        found["reserved"] = torch.cuda.max_memory_reserved(device)
    return found


def _trainer(recipe: Recipe, request: Request, host: PluginHost) -> tuple[Trainer, Batch, Batch]:
    """A trainer of the recipe, one made-up clip, and as many as are asked for."""
    import torch
    from rich.console import Console

    from m2dx.memory.estimate import made_up_crops
    from m2dx.memory.made_up import NO_FOLDER
    from m2dx.model.build import build_model
    from m2dx.training.distributed import Processes
    from m2dx.training.prepare import PreparedRun
    from m2dx.training.trainer import Trainer

    passes = 2 if request.accumulate else 1
    train = recipe.train.model_copy(
        update={"accumulate": passes, "batch_size": passes * request.clips, "rankme_every": 1}
    )
    data = recipe.data.model_copy(update={"epoch_size": None, "sampling": "uniform"})
    recipe = recipe.model_copy(update={"train": train, "data": data})
    labels = {name: tuple(names) for name, names in request.labels.items()}
    crops = made_up_crops(recipe, labels)
    model = build_model(recipe, crops.data, crops.statistics, host)
    run = PreparedRun(
        recipe,
        NO_FOLDER,
        Processes(0, 1, torch.device(request.device)),
        crops.clips,
        crops,  # type: ignore[arg-type]  # has what a trainer asks of it
        model,
        crops.statistics,
        missing=(),
        bad=(),
        host=host,
    )
    return Trainer(run, console=Console(quiet=True)), crops.batch(1), crops.batch(request.clips)


def main() -> None:
    """Answers the request on stdin."""
    request = Request(**json.load(sys.stdin))
    with contextlib.suppress(
        OSError
    ):  # where the machine's memory runs out all the same, this process is to go
        Path("/proc/self/oom_score_adj").write_text("1000")
    from m2dx.memory.measure import end_with_parent_if_asked

    end_with_parent_if_asked(os.environ)
    from m2dx.errors import M2dxError
    from m2dx.plugins import PluginHost

    try:
        found = run_trial(request, PluginHost.discover())
    except M2dxError as error:
        found = {"refused": str(error)}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
