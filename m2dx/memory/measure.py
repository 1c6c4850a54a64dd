"""Measures the memory of training steps, each size in a process of its own, which is ended before it takes too much."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from m2dx.errors import RecipeError, TrainingError
from m2dx.memory.limits import resident_bytes
from m2dx.memory.made_up import Labels
from m2dx.memory.trial import Request
from m2dx.recipe.loading import recipe_to_mapping
from m2dx.recipe.schema import Recipe
from m2dx.training.background_scoring import child_environment
from m2dx.training.evaluation_process import end_with_parent

_POLL_SECONDS = 0.02
_PARENT = "M2DX_TRIAL_PARENT"


@dataclass(frozen=True)
class Measurement:
    """What a step of so many clips a pass took, bytes."""

    clips: int
    accumulate: bool  # gradients of earlier passes were there
    problem: str | None = None  # why there is no peak: memory ran out
    peak: int = 0  # CPU: of the whole process; GPU: of tensors
    reserved: int = 0  # GPU: by the allocator
    context: int = 0  # GPU: CUDA's own
    program: int = 0  # CPU: before there was a model
    network: int = 0  # weights, target, frozen
    state: int = 0  # the optimizer's
    seconds: float = 0.0  # of the step

    @property
    def used(self) -> int:
        """What the device has less while the step runs."""
        return self.reserved + self.context if self.reserved else self.peak


def measure(
    recipe: Recipe, labels: Labels, clips: int, *, accumulate: bool, device: torch.device, limit: int
) -> Measurement:
    """The memory of a step of `clips` a pass on the device; a process that comes to hold `limit` bytes is ended.

    Raises RecipeError where the recipe cannot be trained, TrainingError where the process fails otherwise.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    names = {name: list(values) for name, values in labels.items()}
    request = Request(recipe_to_mapping(recipe), names, clips, accumulate, str(device), free)
    with tempfile.TemporaryDirectory(prefix="m2dx-memory-") as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "m2dx.memory.trial", str(result)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(recipe, gpu=device.type == "cuda"),
            )
            stopped = _wait(process, request, limit if device.type == "cpu" else None)
        if stopped or process.returncode == -signal.SIGKILL:
            what = (
                "ended at the limit" if stopped else "killed by the system, as it does where memory runs out"
            )
            return Measurement(clips, accumulate, problem=what)
        if not result.exists():
            last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise TrainingError(
                f"memory must be measured by training two steps, but these failed (exit code {process.returncode}): "
                f"{last}; `m2dx check` may tell more"
            )
        found = json.loads(result.read_text(encoding="utf-8"))
    if "refused" in found:
        raise RecipeError(found["refused"])
    return Measurement(clips, accumulate, **found)


def end_with_parent_if_asked(environment: Mapping[str, str]) -> None:
    """Lets the process end when the one that started it does."""
    if _PARENT in environment:
        end_with_parent(int(environment[_PARENT]))


def _environment(recipe: Recipe, *, gpu: bool) -> dict[str, str]:
    threads = recipe.train.threads or torch.get_num_threads()
    kept = child_environment(os.environ, threads=threads, gpu=gpu)
    return {**kept, _PARENT: str(os.getpid())}


def _wait(process: subprocess.Popen[bytes], request: Request, limit: int | None) -> bool:
    """Waits for the process; whether it was ended at the limit."""
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(json.dumps(dataclasses.asdict(request)).encode())
        while process.poll() is None:
            if limit is not None and resident_bytes(process.pid) > limit:
                process.kill()
                process.wait()
                return True
            time.sleep(_POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return False
