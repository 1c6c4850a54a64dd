"""What can be measured of a run: its speed, the parts of a step, FLOPs; and the machine's matrix rate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from m2dx.contract.host import PluginHost
from m2dx.data.crops import Batch
from m2dx.data.loader import training_loader
from m2dx.model.shapes import model_shapes
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Processes, pick_device
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer

PARTS = ("loading", "logmel", "encoder", "target", "predictor", "tasks", "backward", "optimizer", "ema")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Run:
    """A trainer with its batches, ready for steps."""

    trainer: Trainer
    batches: Iterator[Batch]

    @property
    def device(self) -> torch.device:
        return self.trainer.processes.device

    def steps(self, count: int) -> None:
        """Trains for `count` steps, and waits for the device."""
        for _ in range(count):
            self.trainer.train_step(self.batches)
        wait(self.device)


def wait(device: torch.device) -> None:
    """Returns when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def start(recipe: Recipe, host: PluginHost) -> Run:
    """A run from its first step; the same clips, crops and masks each time."""
    processes, quiet = Processes(0, 1, pick_device(recipe.train.device)), Console(quiet=True)
    run = prepare(recipe, host, processes, quiet)
    pin = processes.device.type == "cuda"
    loader = training_loader(run.crops, run.batches(), workers=run.workers, pin_memory=pin)
    return Run(Trainer(run, resume=False, console=quiet), iter(loader))


def clips_per_second(run: Run, *, steps: int, warmup: int) -> float:
    """The speed of some steps, after others for warming up."""
    run.steps(warmup)
    started = time.perf_counter()
    run.steps(steps)
    return steps * run.trainer.recipe.train.batch_size / (time.perf_counter() - started)


def kernel_microseconds(event: FunctionEvent) -> float:
    """Time of the GPU kernels that were started inside a range of the profiler.

    Not the profiler's own total: that counts ranges which it shows on the GPU's time line as kernels too.
    """
    own = sum(float(kernel.duration) for kernel in event.kernels if kernel.name != event.name)
    return own + sum(kernel_microseconds(child) for child in event.cpu_children)


def seconds_by_part(run: Run, steps: int) -> dict[str, float]:
    """Seconds per step of each part and of the rest, from the profiler.

    On the CPU the time of the ranges; on a GPU the time of their kernels, but loading by the CPU's clock.
    """
    on_gpu = run.device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    # Backward in this thread, so that its kernels count for the range that is open in this thread.
    with (
        torch.autograd.set_multithreading_enabled(False),
        profile(activities=activities, acc_events=True) as profiler,
    ):
        for _ in range(steps):
            with record_function("m2dx::step"):
                run.trainer.train_step(run.batches)
        wait(run.device)
    seconds = dict.fromkeys(("step", *PARTS), 0.0)
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CPU and event.name.startswith("m2dx::"):
            name = event.name.removeprefix("m2dx::")
            kernels = on_gpu and name != "loading"
            seconds[name] += (kernel_microseconds(event) if kernels else event.cpu_time_total) / 1e6 / steps
    if on_gpu:
        seconds["step"] += seconds["loading"]
    whole = seconds.pop("step")
    return {**seconds, "other": whole - sum(seconds.values())}


def flops_per_clip(run: Run) -> dict[str, float]:
    """FLOPs per clip of the forward pass and of the whole step (2 per multiply-add), from torch's counter."""
    train, device = run.trainer.recipe.train, run.device
    batch = next(run.batches).to(device)
    counter = FlopCounterMode(display=False)
    # The counter knows matrix products but not the CPU's fused attention; the plain kernel is made of the former.
    with sdpa_kernel(SDPBackend.MATH), counter:
        with torch.autocast(device.type, dtype=DTYPES[train.precision], enabled=train.precision != "fp32"):
            total = run.trainer.model(batch).total
        forward = counter.get_total_flops()
        total.backward()
    run.trainer.optimizer.zero_grad(set_to_none=True)
    clips = len(batch.wav)
    return {"forward": forward / clips, "step": counter.get_total_flops() / clips}


def matrix_rate(precision: str, size: int, device: torch.device) -> float:
    """FLOP/s of one square matrix product of that size."""
    left, right = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
    for _ in range(2):  # the first one warms up
        wait(device)
        started = time.perf_counter()
        for _ in range(4):
            left @ right
        wait(device)
        seconds = (time.perf_counter() - started) / 4
    return 2 * size**3 / seconds


def anatomy(run: Run, *, steps: int) -> dict[str, Any]:
    """What is measured once per setting: sizes, FLOPs and the parts of a step."""
    recipe, model = run.trainer.recipe, run.trainer.model
    shapes = model_shapes(recipe.audio, recipe.model)
    parts = seconds_by_part(run, steps)
    whole = sum(parts.values())
    return {
        "visible": shapes.num_visible,
        "masked": shapes.num_masked,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "flops_per_clip": flops_per_clip(run),
        "profiled_seconds_per_step": parts,
        "shares": {name: seconds / whole for name, seconds in parts.items()},
    }
