"""Cost of a clip in training and in encoding, as length, patches and model grow: FLOPs, time, share of the limit.

FLOPs are counted on the model itself (without making it, so that ViT-Large costs nothing); times are of real steps of
recipes/quickstart.yaml with the published sizes. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cost_tables import markdown
from memory_tables import has_markers, write_between
from rich.console import Console
from step import Setting as Sizes
from step import machine_and_versions, quartiles, recipe_of, words
from step_measures import DTYPES, start, wait
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from m2dx.contract.host import PluginHost
from m2dx.memory.estimate import fake_model, made_up_crops
from m2dx.memory.made_up import listed_labels
from m2dx.model.precision import autocast
from m2dx.model.shapes import model_shapes
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import pick_device

FRAME_SECONDS = 0.01
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Row:
    """One setting: what grows, and the sizes."""

    grows: str
    size: str
    patch: str
    frames: int
    timed: bool = True

    def __str__(self) -> str:
        return f"{self.size} {self.patch} 80x{self.frames}"


def rows_of(options: argparse.Namespace) -> list[Row]:
    """Length, patches and model, each alone, from one setting."""
    size, patch, frames = options.size, options.patches[0], options.at_frames
    lengths = [Row("length", size, patch, int(length)) for length in options.frames]
    patches = [Row("patch", size, other, frames) for other in options.patches]
    models = [Row("model", other, patch, frames, other not in options.untimed) for other in options.sizes]
    return [*lengths, *patches, *models]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--frames", type=words, default=["208", "304", "608", "1008"], help="lengths, frames of 10 ms"
    )
    parser.add_argument(
        "--patches", type=words, default=["16x16", "16x4", "80x2"], help="mels x frames, with commas"
    )
    parser.add_argument("--sizes", type=words, default=["tiny", "small", "base", "large"], help="models")
    parser.add_argument(
        "--untimed", type=words, default=["large"], help="models of which FLOPs alone are given"
    )
    parser.add_argument("--size", default="small", help="model while length or patches grow")
    parser.add_argument("--at-frames", type=int, default=608, help="length while patches or model grow")
    parser.add_argument("--precision", choices=DTYPES, default="bf16", help="arithmetic")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: the process's own, for a busy machine"
    )
    parser.add_argument("--batch", type=int, default=4, help="clips a step")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each setting, in turns")
    parser.add_argument("--threads", type=int, help="CPU threads; default torch's choice")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="replace the table between this page's markers"
    )
    options = parser.parse_args(arguments)
    if options.write and not has_markers(options.write, "cost"):
        parser.error(f"--write: {options.write} must be a page with the markers of the benchmark cost")
    return options


def recipe_for(row: Row, options: argparse.Namespace, host: PluginHost, folder: str) -> Recipe:
    """The quickstart with the row's sizes."""
    options.crop_seconds, options.workers, options.overrides = round(row.frames * FRAME_SECONDS, 6), 0, []
    return recipe_of(Sizes(row.size, row.patch, options.precision), options, host, folder)


def flops(recipe: Recipe, host: PluginHost) -> dict[str, float]:
    """FLOPs of one clip (2 per multiply-add) in a training step and in encoding, of a model without values."""
    labels, _ = listed_labels(recipe, host)
    crops, mode = made_up_crops(recipe, labels), FakeTensorMode(allow_non_fake_inputs=True)
    model, clips = fake_model(recipe, crops, host, mode), 2
    with mode, sdpa_kernel(SDPBackend.MATH):
        batch = crops.batch(clips)
        with FlopCounterMode(display=False) as step:
            model(batch).total.backward()
        with torch.no_grad(), FlopCounterMode(display=False) as encoding:
            model.masked_model.online(torch.zeros(clips, 1, *recipe.input.input_size))
    return {"step": step.get_total_flops() / clips, "encoding": encoding.get_total_flops() / clips}


def seconds(recipe: Recipe, host: PluginHost, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of one clip in a training step, and in encoding from the samples on; each after one for warming up."""
    run, precision = start(recipe, host), recipe.train.precision
    run.steps(1)
    began = clock()
    run.steps(1)
    of_step = (clock() - began) / recipe.train.batch_size
    model = run.trainer.model.eval()
    batch = next(run.batches).to(run.device)
    with torch.inference_mode(), autocast(precision, run.device):
        for _ in range(2):
            began = clock()
            model.masked_model.online(model.views(batch)[0])
            wait(run.device)
            of_encoding = (clock() - began) / recipe.train.batch_size
    return {"step": of_step, "encoding": of_encoding}


def matrix_rate(precision: str, device: torch.device, clock: Callable[[], float]) -> float:
    """FLOP/s of large square matrix products."""
    size = 2048 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
    left @ right
    wait(device)
    began = clock()
    for _ in range(4):
        left @ right
    wait(device)
    return 4 * 2 * size**3 / (clock() - began)


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything measured, as plain data for JSON."""
    host, clock, rows = PluginHost.discover(), CLOCKS[options.clock], rows_of(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    timings: dict[str, list[dict[str, float]]] = {str(row): [] for row in rows}
    shares: dict[str, list[dict[str, float]]] = {str(row): [] for row in rows}
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        recipes = {str(row): recipe_for(row, options, host, folder) for row in rows}
        device = pick_device(next(iter(recipes.values())).train.device)
        about = machine_and_versions(device)
        counted = {name: flops(recipe, host) for name, recipe in recipes.items()}
        timed = list(dict.fromkeys(str(row) for row in rows if row.timed))
        for repeat in range(options.repeats):
            for name in timed if repeat % 2 == 0 else reversed(timed):
                rates.append(matrix_rate(options.precision, device, clock))
                found = seconds(recipes[name], host, clock)
                timings[name].append(found)
                shares[name].append({key: counted[name][key] / found[key] / rates[-1] for key in found})
                say(f"{repeat + 1}/{options.repeats} {name}: {1e3 * found['step']:.0f} ms a clip")
                gc.collect()
    results = [_result(row, recipes, counted, timings, shares) for row in rows]
    names = ("precision", "clock", "batch", "repeats")
    return {
        "benchmark": "cost",
        "options": {name: getattr(options, name) for name in names},
        **about,
        "matrix_flops_per_second": quartiles(rates),
        "results": results,
    }


def _result(
    row: Row,
    recipes: dict[str, Recipe],
    counted: dict[str, dict[str, float]],
    timings: dict[str, list[dict[str, float]]],
    shares: dict[str, list[dict[str, float]]],
) -> dict[str, Any]:
    name, recipe = str(row), recipes[str(row)]
    shapes = model_shapes(recipe.input, recipe.model)
    return {
        **vars(row),
        "patches": shapes.grid.num_patches,
        "flops": counted[name],
        "seconds": {
            key: quartiles([t[key] for t in timings[name]]) for key in counted[name] if timings[name]
        },
        "share_of_matrix_rate": {
            key: statistics.median(s[key] for s in shares[name]) for key in counted[name] if shares[name]
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    options, errors = parse(arguments), Console(stderr=True)
    report = measure(options, lambda line: errors.print(line, highlight=False))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(markdown(report))
    if options.write:
        write_between(options.write, "cost", markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
