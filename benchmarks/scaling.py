"""Clips per second of the training step with one process and with several: what is left of each one's speed.

Weak scaling: each process has the same number of clips per step, however many there are. Once with batches that were
read beforehand (step and communication alone), once with real loading. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from short_run import Work, launch
from step import ROOT, machine_and_versions, quartiles, words

RECIPE = "recipes/quickstart.yaml"
FEEDS = ("held", "loading")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--processes",
        type=lambda text: [int(word) for word in words(text)],
        default=[1, 2, 4],
        help="1 among them",
    )
    parser.add_argument("--feeds", type=words, default=list(FEEDS), help=f"of {', '.join(FEEDS)}")
    parser.add_argument("--sharding", default="none", help="train.sharding")
    parser.add_argument("--size", default="tiny", help="ViT size: tiny, small, base or large")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--clips", type=int, default=8, help="per step and process")
    parser.add_argument("--crop-seconds", type=float, default=2.08, help="length of a clip, s")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the timing")
    parser.add_argument("--steps", type=int, default=5, help="of one timing")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each, in turns")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="more recipe fields, as of `m2dx train`"
    )
    options = parser.parse_intermixed_args(arguments)
    if 1 not in options.processes or min(options.processes) < 1:
        parser.error(
            f"--processes must have 1, which the others are compared with, but is {options.processes}"
        )
    if unknown := [name for name in options.feeds if name not in FEEDS]:
        parser.error(f"--feeds must be of {', '.join(FEEDS)}, but has {', '.join(unknown)}")
    for name, least in {"clips": 1, "warmup": 0, "steps": 1, "repeats": 1}.items():
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, but is {getattr(options, name)}")
    return options


def overrides_of(options: argparse.Namespace, processes: int) -> list[str]:
    """The quickstart with the published predictor, and a batch for so many processes."""
    batch = options.clips * processes
    settings = {
        "audio.crop_seconds": options.crop_seconds,
        "data.mean": -7.1,
        "data.std": 4.2,
        "data.epoch_size": batch * (options.warmup + options.steps),
        "noise.mean": -7.1,
        "model.size": options.size,
        "model.depth": "null",
        "model.predictor": "{embed_dim: 512, depth: 8, num_heads: 16}",
        "model.mask_ratio": 0.7,
        "train.epochs": 1,
        "train.warmup_epochs": 0,
        "train.batch_size": batch,
        "train.precision": options.precision,
        "train.sharding": options.sharding,
        "train.threads": 1,
    }
    return [*(f"{key}={value}" for key, value in settings.items()), *options.overrides]


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Clips per second for each number of processes and each feed; the speeds of a round make its efficiency."""
    cases = [(feed, number) for feed in options.feeds for number in options.processes]
    speeds: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    device = "CPU"
    about = machine_and_versions(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats):
            for feed, number in cases if repeat % 2 == 0 else reversed(cases):
                work = Work(options.steps, options.warmup, held=4 if feed == "held" else 0)
                given = [f"output={folder}", *overrides_of(options, number)]
                out = Path(folder) / "out.pt"
                found = launch(ROOT / RECIPE, out, work, given, processes=number)
                device = found["device"]
                speeds[feed, number].append(options.steps * options.clips * number / found["seconds"])
                say(
                    f"{repeat + 1}/{options.repeats} {feed} x {number}: {speeds[feed, number][-1]:.3g} clips/s"
                )
    names = (
        "sharding",
        "size",
        "precision",
        "clips",
        "crop_seconds",
        "warmup",
        "steps",
        "repeats",
        "overrides",
    )
    return {
        "benchmark": "scaling",
        **about,
        "device": device,
        "load_after": round(os.getloadavg()[0], 2),
        "options": {name: getattr(options, name) for name in names},
        "results": [result_of(feed, number, speeds) for feed, number in cases],
    }


def result_of(feed: str, number: int, speeds: Mapping[tuple[str, int], Sequence[float]]) -> dict[str, Any]:
    """A row of the table; `efficiency` is by the speed of one process in the same round."""
    pairs = zip(speeds[feed, number], speeds[feed, 1], strict=True)
    return {
        "feed": feed,
        "processes": number,
        "clips_per_second": quartiles(speeds[feed, number]),
        "efficiency": quartiles([mine / (number * alone) for mine, alone in pairs]),
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The table, and where it was measured."""
    lines = ["| batches | processes | clips/s (quartiles) | efficiency |", "| --- | ---: | ---: | ---: |"]
    cores = report["machine"]["cores"]
    for result in report["results"]:
        speed, share = result["clips_per_second"], result["efficiency"]
        more = " (more than cores)" if report["device"] == "CPU" and result["processes"] > cores else ""
        lines.append(
            f"| {'read beforehand' if result['feed'] == 'held' else 'loaded'} | {result['processes']}{more} | "
            f"{speed['median']:.3g} ({speed['q1']:.3g} to {speed['q3']:.3g}) | {share['median']:.0%} "
            f"({share['q1']:.0%} to {share['q3']:.0%}) |"
        )
    machine, options = report["machine"], report["options"]
    return "\n".join([
        *lines,
        "",
        f"- ViT {options['size']}, predictor 512 wide with 8 blocks, {options['precision']}, sharding "
        f"{options['sharding']}: {options['clips']} clips of {options['crop_seconds']:g} s a step and process; "
        f"{options['repeats']} timings of {options['steps']} steps, each in new processes.",
        f"- {report['date']}, {report['device']}; {machine['cpu']}, {cores} cores, one thread a process, load before "
        f"{machine['load_before']}, after {report['load_after']}; torch {report['versions']['torch']}, Python "
        f"{report['versions']['python']}.",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    options = parse(arguments)
    report = measure(options, lambda line: print(line, file=sys.stderr, flush=True))
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
