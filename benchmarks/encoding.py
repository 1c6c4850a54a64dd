"""Times clip features with torch's own linear layers and with m2dx's on a CPU, in turns.

    python benchmarks/encoding.py [--sizes tiny base] [--clips 8] [--seconds 5.12] [--repeats 9] [--json OUT]

Random weights and noise, in float32 with one thread; given is the processor time of the process, its median and
quartiles, and how many times as fast m2dx's are, of the timings of the same turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from seeds import machine

from m2dx.encoder.audio import random_encoder
from m2dx.model.precision import autocast
from m2dx.recipe.schema import AudioSection, ModelSection


def timings(size: str, args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of each turn, with torch's kernels and with m2dx's, after one turn for warming up."""
    audio, model = AudioSection(crop_seconds=args.seconds), ModelSection(size=size)
    encoder = random_encoder(audio, model, mean=0.0, std=1.0, seed=0)
    generator = torch.Generator().manual_seed(0)
    wav = 0.1 * torch.randn(args.clips, round(args.seconds * encoder.sample_rate), generator=generator)
    own: list[float] = []
    torchs: list[float] = []
    with torch.inference_mode():
        for _ in range(args.repeats + 1):
            for seconds, context in (
                (torchs, contextlib.nullcontext()),
                (own, autocast("fp32", torch.device("cpu"))),
            ):
                begin = time.process_time()
                with context:
                    encoder.clip(wav)
                seconds.append(time.process_time() - begin)
    return torchs[1:], own[1:]


def quartiles(values: list[float], unit: float = 1.0) -> str:
    """Median and quartiles."""
    low, middle, high = np.percentile(np.array(values) * unit, [25, 50, 75])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time clip features on a CPU.")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base"])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.12)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where the times are written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = f"{args.clips} clips of {args.seconds:g} s, load {os.getloadavg()[0]:.1f}; {machine()}"
    print(f"{about}\n\n| model | torch's, ms a clip | m2dx's | times as fast |\n|---|---:|---:|---:|")
    found = {size: timings(size, args) for size in args.sizes}
    for size, (torchs, own) in found.items():
        ratios = [before / after for before, after in zip(torchs, own, strict=True)]
        unit = 1000 / args.clips
        print(f"| {size} | {quartiles(torchs, unit)} | {quartiles(own, unit)} | {quartiles(ratios)} |")
    if args.json is not None:
        content = {size: {"torch": torchs, "m2dx": own} for size, (torchs, own) in found.items()}
        args.json.write_text(
            json.dumps({"about": about, "seconds": content}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
