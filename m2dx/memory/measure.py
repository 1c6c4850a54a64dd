"""Measures the memory of training steps, each size in a process of its own, which is ended before it takes too much."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from m2dx.contract.errors import RecipeError, TrainingError
from m2dx.jobs.background_scoring import child_environment
from m2dx.memory.limits import resident_bytes
from m2dx.memory.made_up import Labels
from m2dx.memory.trial import Request
from m2dx.recipe.loading import recipe_to_mapping
from m2dx.recipe.schema import Recipe

_POLL_SECONDS = 0.02


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
    beside: int = 0  # of loading processes, and what other training processes add or save; not measured here

    @property
    def used(self) -> int:
        """What the device has less while the step runs."""
        return (self.reserved + self.context if self.reserved else self.peak) + self.beside


class Trials:
    """Measures steps of a recipe on a device; a context, at whose end nothing is left running."""

    def __init__(self, recipe: Recipe, labels: Labels, device: torch.device) -> None:
        self.recipe, self.labels, self.device = recipe, labels, device
        self._folder = tempfile.TemporaryDirectory(prefix="m2dx-memory-")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.kill()  # the trials end with it
            self._process.wait()
            self._process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process = None
        self._folder.cleanup()

    def measure(self, clips: int, *, accumulate: bool, limit: int) -> Measurement:
        """The memory of a step of `clips` a pass; on a CPU a process that comes to hold `limit` bytes is ended.

        Raises RecipeError where the recipe cannot be trained, TrainingError where the trial fails otherwise.
        """
        result = Path(self._folder.name, "result.json")
        result.unlink(missing_ok=True)
        on_gpu = self.device.type == "cuda"
        request = Request(
            recipe_to_mapping(self.recipe),
            {name: list(values) for name, values in self.labels.items()},
            clips,
            accumulate,
            str(self.device),
            str(result),
            self.recipe.train.threads or torch.get_num_threads(),
            torch.cuda.mem_get_info(self.device)[0] if on_gpu else 0,
        )
        code = self._run(request, None if on_gpu else limit)
        if not result.exists():
            if code in (None, -signal.SIGKILL):
                what = "ended at the limit" if code is None else "killed where memory ran out"
                return Measurement(clips, accumulate, problem=what)
            raise _failed(f"exit code {code}")
        found = json.loads(result.read_text(encoding="utf-8"))
        if "refused" in found:
            raise RecipeError(found["refused"])
        if "failed" in found:
            raise _failed(found["failed"])
        return Measurement(clips, accumulate, **found)

    def _run(self, request: Request, limit: int | None) -> int | None:
        """The exit code of the trial's process; None: it was ended at the limit."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            print(json.dumps(dataclasses.asdict(request)), file=process.stdin, flush=True)
            pid = int(process.stdout.readline())
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while not selector.select(_POLL_SECONDS):
                    if limit is not None and resident_bytes(pid) > limit:
                        os.kill(pid, signal.SIGKILL)
                        process.stdout.readline()
                        return None
            return int(process.stdout.readline())
        except (BrokenPipeError, ValueError) as error:  # it ended without an answer
            raise _failed(f"the process that starts them ended with exit code {process.wait()}") from error

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "m2dx.memory.trial", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=child_environment(
                    os.environ, threads=torch.get_num_threads(), gpu=self.device.type == "cuda"
                ),
            )
        return self._process


def _failed(reason: str) -> TrainingError:
    return TrainingError(
        f"memory must be measured by training two steps, but these failed: {reason}; `m2dx check` may tell more"
    )
