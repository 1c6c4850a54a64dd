"""Speed of the training step: clips per second by ViT size, patch size and precision, where the time goes, and FLOPs.

Real runs of recipes/quickstart.yaml (M2D, the labels task, background noise, recordings from the disk), with the
published sizes of encoder and predictor, mask ratio 0.7. See benchmarks/README.md.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from step_measures import DTYPES, anatomy, clips_per_second, matrix_rate, start
from step_tables import BEGIN, END, has_markers, show, write_page

import m2dx
from m2dx.contract.errors import M2dxError
from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import pick_device

ROOT = Path(__file__).resolve().parents[1]
RECIPE = "recipes/quickstart.yaml"
OPTION_OF = {  # recipe fields that have an option of their own
    "model.size": "--sizes",
    "model.patch_size": "--patches",
    "train.precision": "--precisions",
    "audio.crop_seconds": "--crop-seconds",
    "train.batch_size": "--batch",
    "train.threads": "--threads",
    "data.workers": "--workers",
}


@dataclass(frozen=True)
class Setting:
    """What one row of the table is about."""

    size: str
    patch: str  # "16x16": mels x frames
    precision: str

    def __str__(self) -> str:
        return f"{self.size} {self.patch} {self.precision}"


def words(text: str) -> list[str]:
    """The words of a list with commas, each once."""
    return list(dict.fromkeys(text.split(",")))


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
    parser.add_argument("--batch", type=int, default=4, help="clips per step")
    parser.add_argument("--steps", type=int, default=2, help="steps of one timing")
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
    least_of = {"batch": 1, "steps": 1, "warmup": 0, "repeats": 1, "threads": 1, "workers": 0, "matrix": 1}
    for name, least in least_of.items():
        if getattr(options, name) is not None and getattr(options, name) < least:
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
        "model.mask_ratio": 0.7,
        "train.batch_size": options.batch,
        "train.precision": setting.precision,
        "train.threads": options.threads or "null",
    }
    lines = [f"{key}={value}" for key, value in overrides.items()]
    return load_recipe(ROOT / RECIPE, [*lines, *options.overrides], host=host)


def quartiles(samples: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and the samples themselves."""
    cuts = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    return {"median": cuts[1], "q1": cuts[0], "q3": cuts[2], "samples": list(samples)}


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
                speeds[setting].append(clips_per_second(run, steps=options.steps, warmup=options.warmup))
                if repeat == 0:
                    found[setting] = anatomy(run, steps=options.steps)
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
        "recipe": RECIPE,
        "options": {**{name: getattr(options, name) for name in names}, "seed": seed, "matrix": matrix},
        **machine_and_versions(device),
    }


def machine_and_versions(device: torch.device) -> dict[str, Any]:
    """Where it was measured, and when."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
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
