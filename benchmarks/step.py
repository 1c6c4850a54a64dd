"""Speed of the training step: clips per second by ViT size, patch size and precision, where the time goes, and FLOPs.

Real runs of recipes/quickstart.yaml (M2D, the labels task, background noise, recordings from the disk), with the
published sizes of encoder and predictor. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

import m2dx
from m2dx.audio.crops import Batch
from m2dx.audio.loader import training_loader
from m2dx.errors import M2dxError
from m2dx.model.build import model_shapes
from m2dx.plugins import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Processes, pick_device
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer
from step_tables import BEGIN, END, has_markers, show, write_page

ROOT = Path(__file__).resolve().parents[1]
RECIPE = "recipes/quickstart.yaml"
PARTS = ("loading", "logmel", "encoder", "target", "predictor", "tasks", "backward", "optimizer", "ema")
OPTION_OF = {  # recipe fields that have an option of their own
    "model.size": "--sizes",
    "model.patch_size": "--patches",
    "train.precision": "--precisions",
    "audio.crop_seconds": "--crop-seconds",
    "train.batch_size": "--batch",
    "train.threads": "--threads",
    "data.workers": "--workers",
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """What one row of the table is about."""

    size: str
    patch: str  # "16x16": mels x frames
    precision: str

    def __str__(self) -> str:
        return f"{self.size} {self.patch} {self.precision}"


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


def words(text: str) -> list[str]:
    """The words of a list with commas."""
    return text.split(",")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=words, default=["tiny", "small", "base"], help="tiny,small,base,large"
    )
    parser.add_argument(
        "--patches", type=words, default=["16x16", "16x4", "80x2"], help="mels x frames, with commas"
    )
    parser.add_argument("--precisions", type=words, default=["fp32", "bf16"], help="fp32,bf16,fp16")
    parser.add_argument("--crop-seconds", type=float, default=6.08, help="length of a clip, s")
    parser.add_argument("--batch", type=int, default=8, help="clips per step")
    parser.add_argument("--steps", type=int, default=3, help="steps of one timing")
    parser.add_argument("--warmup", type=int, default=1, help="steps before each timing")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each setting")
    parser.add_argument("--threads", type=int, help="CPU threads; default torch's choice")
    parser.add_argument(
        "--workers", type=int, default=0, help="loading processes; 0: in the training process"
    )
    parser.add_argument("--matrix", type=int, help="size of the matrix product; default 4096, on a CPU 2048")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="replace the tables between the markers of this page"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="more recipe fields, as of `m2dx train`"
    )
    options = parser.parse_intermixed_args(arguments)
    check(options, parser)
    return options


def check(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Ends the program with what must hold, where an option is wrong."""
    for name, least in (("batch", 1), ("steps", 1), ("warmup", 0), ("repeats", 1), ("workers", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, but is {getattr(options, name)}")
    if unknown := [name for name in options.precisions if name not in DTYPES]:
        parser.error(f"--precisions must be of {', '.join(DTYPES)}, but has {', '.join(unknown)}")
    for key in (text.partition("=")[0] for text in options.overrides):
        if key in OPTION_OF:
            parser.error(f"{key} must be set by {OPTION_OF[key]}, which the table is about")
    if options.write and not has_markers(options.write):
        parser.error(f"--write: {options.write} must be a page with the lines {BEGIN} and {END}")


def recipe_of(setting: Setting, options: argparse.Namespace, host: PluginHost, folder: str) -> Recipe:
    """The quickstart with the setting's sizes, and with statistics given, so that nothing is measured beforehand."""
    overrides = {
        "output": folder,
        "audio.crop_seconds": options.crop_seconds,
        "data.mean": -7.1,
        "data.std": 4.2,
        "data.workers": options.workers,
        "noise.mean": -7.1,
        "model.size": setting.size,
        "model.depth": "null",
        "model.patch_size": f"[{setting.patch.replace('x', ', ')}]",
        "model.predictor": "{embed_dim: 512, depth: 8, num_heads: 16}",
        "train.batch_size": options.batch,
        "train.precision": setting.precision,
        "train.threads": options.threads or "null",
    }
    lines = [f"{key}={value}" for key, value in overrides.items()]
    return load_recipe(ROOT / RECIPE, [*lines, *options.overrides], host=host)


def start(recipe: Recipe, host: PluginHost) -> Run:
    """A run from its first step; the same clips, crops and masks each time."""
    processes, quiet = Processes(0, 1, pick_device(recipe.train.device)), Console(quiet=True)
    run = prepare(recipe, host, processes, quiet)
    pin = processes.device.type == "cuda"
    loader = training_loader(run.crops, run.batches(), workers=run.workers, pin_memory=pin)
    return Run(Trainer(run, resume=False, console=quiet), iter(loader))


def clips_per_second(run: Run, options: argparse.Namespace) -> float:
    """The speed of some steps, after others for warming up."""
    run.steps(options.warmup)
    started = time.perf_counter()
    run.steps(options.steps)
    return float(options.steps * options.batch / (time.perf_counter() - started))


def kernel_microseconds(event: FunctionEvent) -> float:
    """Time of the GPU kernels that were started inside a range of the profiler.

    Not the profiler's own total: that counts ranges which it shows on the GPU's time line as kernels too.
    """
    own = sum(kernel.duration for kernel in event.kernels if kernel.name != event.name)
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
        if event.device_type == DeviceType.CPU and event.name.startswith("m2dx::"):
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


def anatomy(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """What is measured once per setting: sizes, FLOPs and the parts of a step."""
    recipe, model = run.trainer.recipe, run.trainer.model
    shapes = model_shapes(recipe.audio, recipe.model)
    parts = seconds_by_part(run, options.steps)
    whole = sum(parts.values())
    return {
        "visible": shapes.num_visible,
        "masked": shapes.num_masked,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "flops_per_clip": flops_per_clip(run),
        "profiled_seconds_per_step": parts,
        "shares": {name: seconds / whole for name, seconds in parts.items()},
    }


def quartiles(samples: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and the samples themselves."""
    low, median, high = (
        statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
    )
    return {"median": median, "q1": low, "q3": high, "samples": list(samples)}


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything measured, as plain data for JSON."""
    host = PluginHost.discover()
    settings = [Setting(*parts) for parts in product(options.sizes, options.patches, options.precisions)]
    speeds: dict[Setting, list[float]] = {setting: [] for setting in settings}
    rates: dict[str, list[float]] = {name: [] for name in options.precisions}
    found: dict[Setting, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        recipes = {setting: recipe_of(setting, options, host, folder) for setting in settings}
        device = pick_device(recipes[settings[0]].train.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        size = options.matrix or (2048 if device.type == "cpu" else 4096)
        about = surroundings(options, device, seed=recipes[settings[0]].seed, matrix=size)
        for repeat in range(options.repeats):
            for precision in options.precisions:
                rates[precision].append(matrix_rate(precision, size, device))
            # There and back: a machine that gets slower slows every setting by the same.
            for setting in settings if repeat % 2 == 0 else reversed(settings):
                run = start(recipes[setting], host)
                speeds[setting].append(clips_per_second(run, options))
                if repeat == 0:
                    found[setting] = anatomy(run, options)
                say(f"{repeat + 1}/{options.repeats} {setting}: {speeds[setting][-1]:.3g} clips/s")
                del run
                gc.collect()  # models held in reference cycles: the next setting needs the memory
    results = [result_of(setting, found[setting], speeds, rates) for setting in settings]
    matrix = {name: quartiles(samples) for name, samples in rates.items()}
    return {**about, "matrix_flops_per_second": matrix, "results": results}


def result_of(
    setting: Setting,
    found: dict[str, Any],
    speeds: dict[Setting, list[float]],
    rates: dict[str, list[float]],
) -> dict[str, Any]:
    """One setting's numbers; `speedup` is against the first precision, timing by timing."""
    first = Setting(setting.size, setting.patch, next(iter(rates)))
    ratios = [mine / other for mine, other in zip(speeds[setting], speeds[first], strict=True)]
    speed = quartiles(speeds[setting])
    flops = found["flops_per_clip"]["step"] * speed["median"]
    return {
        **vars(setting),
        "clips_per_second": speed,
        "speedup": quartiles(ratios),
        "flops_per_second": flops,
        "share_of_matrix_rate": flops / statistics.median(rates[setting.precision]),
        **found,
    }


def surroundings(
    options: argparse.Namespace, device: torch.device, *, seed: int, matrix: int
) -> dict[str, Any]:
    """Where and how it was measured."""
    names = ("crop_seconds", "batch", "steps", "warmup", "repeats", "workers", "overrides")
    return {
        "benchmark": "training step",
        "date": datetime.now(UTC).date().isoformat(),
        "recipe": RECIPE,
        "options": {**{name: getattr(options, name) for name in names}, "seed": seed, "matrix": matrix},
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "m2dx": m2dx.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def cpu_name() -> str:
    """The processor's name, as well as the system knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; 1 where m2dx refuses a setting."""
    options, errors = parse(arguments), Console(stderr=True)
    try:
        report = measure(options, lambda line: errors.print(line, highlight=False))
    except M2dxError as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        return 1
    show(report, Console(width=None if sys.stdout.isatty() else 140))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.write:
        write_page(options.write, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
