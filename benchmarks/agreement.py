"""How far runs of other arithmetic, or of several processes, are from an eager float32 run of one process.

Each trains the same model from the same weights on the same clips, crops and masks of real recordings. Losses of every
step and the last weights are compared, beside the tolerance that m2dx promises. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from short_run import Work, launch, run
from step import ROOT, machine_and_versions

from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.training.distributed import Processes

RECIPE = "recipes/quickstart.yaml"
SETTINGS = {
    "audio.crop_seconds": 0.96,
    "data.workers": 0,
    "data.mean": -7.1,
    "data.std": 4.2,
    "noise.mean": -7.1,
    "model.depth": 2,
    "train.batch_size": 16,
    "train.warmup_epochs": 0,
    "train.base_lr": 4e-3,
    "train.precision": "fp32",
    "train.threads": 1,
}


@dataclass(frozen=True)
class Variant:
    """A way to train, and how far it may be from the reference."""

    overrides: tuple[str, ...]
    processes: int
    loss: float  # largest relative difference of a step's loss
    weights: float  # norm of the difference of the last weights, by that of the way from the first ones


ROUNDING = (1e-5, 2e-3)
"""What another order of the same float32 sums may give."""
BF16 = (5e-3, 0.2)
"""What products of bfloat16 may give."""
VARIANTS = {
    "accumulation": Variant(("train.accumulate=4",), 1, *ROUNDING),
    "compiled": Variant(("train.compile=true",), 1, *ROUNDING),
    "bf16": Variant(("train.precision=bf16",), 1, *BF16),
    "2 processes": Variant((), 2, *ROUNDING),
    "2 processes, accumulation": Variant(("train.accumulate=2",), 2, *ROUNDING),
    "2 processes, bf16": Variant(("train.precision=bf16",), 2, *BF16),
    "2 processes, shards": Variant(("train.sharding=fsdp",), 2, *ROUNDING),
    "2 processes, shards, accumulation": Variant(("train.sharding=fsdp", "train.accumulate=2"), 2, *ROUNDING),
    "2 processes, shards, bf16": Variant(("train.sharding=fsdp", "train.precision=bf16"), 2, *BF16),
    "2 processes, shards, compiled": Variant(("train.sharding=fsdp", "train.compile=true"), 2, *ROUNDING),
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--variants",
        type=lambda text: [name.strip() for name in text.split(";")],
        help=f"of {'; '.join(VARIANTS)}; default all",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="more recipe fields, as of `m2dx train`"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, but is {options.steps}")
    if unknown := [name for name in options.variants or () if name not in VARIANTS]:
        parser.error(f"--variants must be of {'; '.join(VARIANTS)}, but has {'; '.join(unknown)}")
    return options


def train(variant: Variant, work: Work, folder: Path, overrides: Sequence[str]) -> Mapping[str, Any]:
    """Losses and weights of a variant; in this process where it needs no other, and compiles nothing."""
    given = [f"{key}={value}" for key, value in SETTINGS.items()]
    given += [f"output={folder}", *overrides, *variant.overrides]
    if variant.processes > 1 or "train.compile=true" in variant.overrides:
        return launch(ROOT / RECIPE, folder / "out.pt", work, given, processes=variant.processes)
    host = PluginHost.discover()
    recipe = load_recipe(ROOT / RECIPE, given, host=host)
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.train.device != "cpu" else "cpu")
    return vars(run(recipe, host, Processes(0, 1, device), work))


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The norm of the difference of all trained weights."""
    squares = [(value.double() - other[name].double()).square().sum() for name, value in one.items()]
    return float(torch.stack(squares).sum().sqrt())


def compare(found: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """How far a variant's losses and weights are from the reference's."""
    pairs = zip(found["losses"], reference["losses"], strict=True)
    way = distance(reference["weights"], reference["start"])
    return {
        "first_loss": abs(found["losses"][0] / reference["losses"][0] - 1.0),
        "loss": max(abs(ours / theirs - 1.0) for ours, theirs in pairs),
        "weights": distance(found["weights"], reference["weights"]) / way,
        "start": distance(found["start"], reference["start"]) / way,
    }


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Every variant beside the reference."""
    names = [name for name in VARIANTS if options.variants is None or name in options.variants]
    work = Work(options.steps, weights=True)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = train(Variant((), 1, 0.0, 0.0), work, folder, options.overrides)
        about = machine_and_versions(torch.device("cpu" if reference["device"] == "CPU" else "cuda"))
        for name in names:
            variant = VARIANTS[name]
            try:
                values = compare(train(variant, work, folder, options.overrides), reference)
            except RuntimeError as error:
                results.append({"variant": name, "failed": str(error)})
                say(f"{name}: {error}")
                continue
            kept = values["loss"] <= variant.loss and values["weights"] <= variant.weights
            limits = {"loss_limit": variant.loss, "weights_limit": variant.weights}
            results.append({"variant": name, **values, **limits, "kept": kept and values["start"] == 0.0})
            say(f"{name}: {values}")
    return {
        "benchmark": "agreement",
        **about,
        "options": {"steps": options.steps, "overrides": options.overrides, **SETTINGS},
        "losses": reference["losses"],
        "results": results,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The table, and where it was measured."""
    lines = [
        "| run | first loss | largest of all losses | tolerance | last weights | tolerance | kept |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for result in report["results"]:
        if "failed" in result:
            lines.append(f"| {result['variant']} | failed | | | | | no |")
            continue
        lines.append(
            f"| {result['variant']} | {result['first_loss']:.1e} | {result['loss']:.1e} | {result['loss_limit']:.0e} | "
            f"{result['weights']:.1e} | {result['weights_limit']:.0e} | {'yes' if result['kept'] else 'no'} |"
        )
    machine, options = report["machine"], report["options"]
    return "\n".join([
        *lines,
        "",
        f"- {options['steps']} steps of {options['train.batch_size']} clips; the reference's loss goes from "
        f"{report['losses'][0]:.3f} to {report['losses'][-1]:.3f}.",
        f"- {report['date']}, {machine['device']}; {machine['cpu']}, {machine['cores']} cores, load before "
        f"{machine['load_before']}; torch {report['versions']['torch']}, Python {report['versions']['python']}.",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 where a tolerance is not kept."""
    options = parse(arguments)
    report = measure(options, lambda line: print(line, file=sys.stderr, flush=True))
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result.get("kept") for result in report["results"]) else 1


if __name__ == "__main__":
    sys.exit(main())
