"""Clips per second of the training step with one process and with several: what is left of each one's speed.

Weak scaling: each process has the same number of clips per step, however many there are. Once with batches that were
read beforehand (step and communication alone), once with real loading. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import timing
from runs import Work, launch, overrides_with
from timing import Quartiles

FEEDS = {"read beforehand": 4, "loaded": 0}
"""Where batches come from, and how many are read beforehand."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = timing.options_of(__doc__)
    add, at_least = parser.add_argument, timing.at_least
    add("--processes", type=at_least(1), nargs="+", default=[1, 2, 4], help="1 among them")
    add("--feeds", nargs="+", choices=list(FEEDS), default=list(FEEDS))
    add("--sharding", default="none", help="train.sharding")
    add("--size", default="tiny", help="ViT size: tiny, small, base or large")
    add("--precision", default="fp32")
    add("--clips", type=at_least(1), default=8, help="per step and process")
    add("--crop-seconds", type=float, default=2.08, help="length of a clip, s")
    add("--warmup", type=at_least(0), default=2, help="steps before the timing")
    add("--steps", type=at_least(1), default=5, help="of one timing")
    add("--repeats", type=at_least(1), default=3, help="timings of each, in turns")
    options = parser.parse_intermixed_args(arguments)
    if 1 not in options.processes:
        parser.error(f"--processes must have 1, which the others are compared with: {options.processes}")
    return options


def overrides_of(options: argparse.Namespace, processes: int, folder: str) -> list[str]:
    """The recipe with the published predictor, and a batch for so many processes."""
    batch = options.clips * processes
    fields = {
        "output": folder,
        "audio.crop_seconds": options.crop_seconds,
        "data.epoch_size": batch * (options.warmup + options.steps),
        "noise.mean": -7.1,
        "model.size": options.size,
        "train.epochs": 1,
        "train.warmup_epochs": 0,
        "train.batch_size": batch,
        "train.precision": options.precision,
        "train.sharding": options.sharding,
        "train.threads": 1,
    }
    return overrides_with(fields, options.overrides)


def measure(options: argparse.Namespace) -> timing.Tables:
    """Clips per second for each feed and number of processes; the speeds of a round make its efficiency."""
    cases = [(feed, number) for feed in options.feeds for number in options.processes]
    with tempfile.TemporaryDirectory() as folder:

        def clips_per_second(case: tuple[str, int], repeat: int) -> float:
            feed, number = case
            todo = Work(options.steps, options.warmup, held=FEEDS[feed])
            given = overrides_of(options, number, folder)
            done = launch(timing.RECIPE, Path(folder) / "out.pt", todo, given, processes=number)
            return options.steps * options.clips * number / done.seconds

        speeds = timing.in_turns(cases, options.repeats, clips_per_second)
    return {
        "Weak scaling": [
            {
                "batches": feed,
                "processes": number,
                "clips/s": Quartiles.of(speeds[feed, number]),
                "efficiency": Quartiles.ratio(speeds[feed, number], [number * x for x in speeds[feed, 1]]),
            }
            for feed, number in cases
        ]
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    options = parse(arguments)
    return timing.give(options, lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
