"""Speed of the training step: clips per second by ViT size, patch size, precision and masking; its parts, and FLOPs.

Real runs of recipes/step.yaml (M2D, the labels task, background noise, recordings from the disk), with the
published sizes of encoder and predictor, mask ratio 0.7. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import timing
import torch
from runs import Run, overrides_with, start, wait
from timing import Quartiles
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from m2dx.contract.host import PluginHost
from m2dx.model.shapes import model_shapes
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import pick_device

PARTS = ("loading", "logmel", "encoder", "target", "predictor", "tasks", "backward", "optimizer", "ema")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """What one row of the table is about."""

    size: str
    patch: str  # "16x16": mels x frames
    precision: str
    masking: str

    def __str__(self) -> str:
        return f"{self.size} {self.patch} {self.precision} {self.masking}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = timing.options_of(__doc__)
    add, at_least = parser.add_argument, timing.at_least
    add("--sizes", nargs="+", default=["tiny", "small", "base"], help="ViT sizes")
    add("--patches", nargs="+", default=["16x16", "16x4", "80x2"], help="mels x frames")
    add("--precisions", nargs="+", choices=list(DTYPES), default=["fp32", "bf16"])
    add("--maskings", nargs="+", default=["random"], help="maskings, of plugins, too")
    add("--crop-seconds", type=float, default=6.08, help="length of a clip, s")
    add("--batch", type=at_least(1), default=4, help="clips per step")
    add("--steps", type=at_least(1), default=2, help="steps of one timing")
    add("--warmup", type=at_least(0), default=1, help="steps before each timing")
    add("--repeats", type=at_least(1), default=5, help="timings of each setting")
    add("--threads", type=at_least(1), help="CPU threads; default torch's choice")
    add("--workers", type=at_least(0), default=0, help="loading processes; 0: in the training process")
    add("--matrix", type=at_least(1), help="size of the matrix product; default 4096, on a CPU 2048")
    return parser.parse_intermixed_args(arguments)


def recipe_of(setting: Setting, options: argparse.Namespace, host: PluginHost, folder: str) -> Recipe:
    """The recipe with the setting's sizes."""
    fields = {
        "output": folder,
        "audio.crop_seconds": options.crop_seconds,
        "data.workers": options.workers,
        "noise.mean": -7.1,
        "model.size": setting.size,
        "model.masking": setting.masking,
        "model.patch_size": f"[{setting.patch.replace('x', ', ')}]",
        "train.batch_size": options.batch,
        "train.precision": setting.precision,
        "train.threads": options.threads or "null",
    }
    return load_recipe(timing.RECIPE, overrides_with(fields, options.overrides), host=host)


def measure(options: argparse.Namespace) -> timing.Tables:
    """The speed of each setting, and the shares of its parts."""
    host = PluginHost.discover()
    axes = options.sizes, options.patches, options.precisions, options.maskings
    settings = [Setting(*parts) for parts in product(*axes)]
    rates: dict[str, list[float]] = {name: [] for name in options.precisions}
    flops: dict[Setting, float] = {}
    parts: dict[Setting, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        recipes = {setting: recipe_of(setting, options, host, folder) for setting in settings}
        device = pick_device(recipes[settings[0]].train.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        size = options.matrix or (2048 if device.type == "cpu" else 4096)

        def clips_per_second(setting: Setting, repeat: int) -> float:
            if len(rates[setting.precision]) == repeat:  # once a round
                rates[setting.precision].append(matrix_rate(setting.precision, size, device))
            run = start(recipes[setting], host)
            run.steps(options.warmup)
            speed = options.steps * options.batch / run.seconds(options.steps)
            if repeat == 0:
                parts[setting] = seconds_by_part(run, options.steps)
                flops[setting] = flops_per_clip(run)
            del run
            gc.collect()  # models held in reference cycles: the next setting needs the memory
            return speed

        speeds = timing.in_turns(settings, options.repeats, clips_per_second)
    rows = []
    for setting in settings:
        shapes = model_shapes(recipes[setting].audio, recipes[setting].model)
        first = replace(setting, precision=options.precisions[0], masking=options.maskings[0])
        speed = Quartiles.of(speeds[setting])
        rows.append({
            **vars(setting),
            "visible + masked": f"{shapes.num_visible} + {shapes.num_masked}",
            "clips/s": speed,
            "speed-up": Quartiles.ratio(speeds[setting], speeds[first]),
            "GFLOP/clip": flops[setting] / 1e9,
            "GFLOP/s": flops[setting] * speed.median / 1e9,
            "of the matrix rate": flops[setting] * speed.median / statistics.median(rates[setting.precision]),
        })  # fmt: skip
    return {
        "Speed of the training step": rows,
        "Share of each part, % of the step's time": [
            {**vars(setting), **{name: 100 * s / sum(found.values()) for name, s in found.items()}}
            for setting, found in parts.items()
        ],
        f"Matrix product of {size} x {size}": [
            {"precision": name, "GFLOP/s": Quartiles.of([rate / 1e9 for rate in found])}
            for name, found in rates.items()
        ],
    }


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


def kernel_microseconds(event: FunctionEvent) -> float:
    """Time of the GPU kernels that were started inside a range of the profiler.

    Not the profiler's own total: that counts ranges which it shows on the GPU's time line as kernels too.
    """
    own = sum(float(kernel.duration) for kernel in event.kernels if kernel.name != event.name)
    return own + sum(kernel_microseconds(child) for child in event.cpu_children)


def flops_per_clip(run: Run) -> float:
    """FLOPs per clip of forward and backward together (2 per multiply-add), from torch's counter."""
    train, device = run.trainer.recipe.train, run.device
    batch = next(run.batches).to(device)
    counter = FlopCounterMode(display=False)
    # The counter knows matrix products but not the CPU's fused attention; the plain kernel is made of the former.
    with sdpa_kernel(SDPBackend.MATH), counter:
        with torch.autocast(device.type, dtype=DTYPES[train.precision], enabled=train.precision != "fp32"):
            total = run.trainer.model(batch).total
        total.backward()
    run.trainer.optimizer.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(batch.inputs)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; 1 where m2dx refuses a setting."""
    options = parse(arguments)
    return timing.give(options, lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
