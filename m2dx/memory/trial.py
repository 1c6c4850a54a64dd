"""Trains for two steps on made-up clips, and tells what memory that took: a process for each request.

    python -m m2dx.memory.trial PARENT

Each line on stdin is a request (JSON of `Request`), answered by two lines on stdout: the id of its process, and how
that ended. What it found is in the request's file. The processes are forks of this one, which has imported all and
computed nothing: where memory runs out, they end, and not this one.
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

from m2dx.contract.errors import M2dxError
from m2dx.jobs.evaluation_process import end_with_parent

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost
    from m2dx.data.crops import Batch
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
    result: str  # file to write
    threads: int = 1
    free: int = 0  # of a GPU before this process was there, bytes


def run_trial(request: Request, host: PluginHost) -> dict[str, Any]:
    """Two steps: one of one clip a pass, after which the optimizer has its state, and the one that is measured."""
    import torch

    from m2dx.memory.limits import forget_peak, resident_bytes
    from m2dx.recipe.loading import recipe_from_mapping
    from m2dx.training.memory import is_shortage

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


def answer(request: Request, host: PluginHost, *, libraries: int) -> None:
    """Writes the request's file; `libraries`: bytes of the process that this one is a fork of.

    A fork begins without the pages of the libraries, which a process by itself has; they are put on top.
    """
    import torch

    from m2dx.memory.limits import resident_bytes

    # Where the machine's memory runs out all the same, this process is to go.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(request.threads)
    try:
        before = resident_bytes()
        found = run_trial(request, host)
        if request.device == "cpu":
            found["program"] += libraries - before
            found["peak"] += libraries - before
    except M2dxError as error:
        found = {"refused": str(error)}
    except Exception as error:  # of whatever kind: it is to be told, not this process's trace
        found = {"failed": " ".join(f"{type(error).__name__}: {error}".split())}
    Path(request.result).write_text(json.dumps(found), encoding="utf-8")


def main() -> None:
    """Answers requests until stdin ends."""
    end_with_parent(int(sys.argv[1]))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what plugins print is no reply
    from m2dx.contract.host import PluginHost
    from m2dx.memory.limits import resident_bytes
    from m2dx.training import trainer  # noqa: F401  # before the forks, which then need not import it

    host = PluginHost.discover()
    libraries = resident_bytes()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            end_with_parent(os.getppid())
            try:
                answer(Request(**json.loads(line)), host, libraries=libraries)
            finally:
                os._exit(0)
        print(pid, file=replies)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=replies)


if __name__ == "__main__":
    main()
