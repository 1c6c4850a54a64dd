"""Times a linear evaluation of cached features: by default ESC-50's size, 5 folds, 6 seeds, 2000 clips, 3840 wide.

    python benchmarks/linear_speed.py [--clips 2000] [--width 3840] [--classes 50] [--folds 5] [--seeds 6]
                                      [--repeats 3] [--threads N] [--json OUT]

The features are drawn: a centre for each class and noise around it, so that a linear layer reaches about nine tenths,
as those of ESC-50 do. Timed is what an evaluation does once features are cached: read the file, standardise, train all
layers, score them; with the paper's learning rate (3e-5) and with the evaluator's own. How long that takes depends on
the epoch in which the layers stop, which is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from seeds import machine
from torch import Tensor

from m2dx.evaluation.linear import LinearSettings, fit
from m2dx.evaluation.splits import Fold

RATES = {"the paper's, 3e-5": 3e-5, "the evaluator's, 1e-3": 1e-3}


def drawn_features(clips: int, width: int, classes: int, spread: float) -> tuple[Tensor, Tensor]:
    """Features (n, D) around one centre per class, and class numbers (n,)."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(clips) % classes
    centres = torch.randn(classes, width, generator=generator) * spread
    return centres[y] + torch.randn(clips, width, generator=generator), y


def rotating_folds(clips: int, count: int) -> tuple[Fold, ...]:
    """Each fold is the test part once; the next one is the validation part."""
    fold = np.arange(clips) * count // clips
    return tuple(
        Fold(
            str(test),
            np.flatnonzero((fold != test) & (fold != (test + 1) % count)),
            np.flatnonzero(fold == (test + 1) % count),
            np.flatnonzero(fold == test),
        )
        for test in range(count)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a linear evaluation of cached features.")
    for name, default in (("clips", 2000), ("width", 3840), ("classes", 50), ("folds", 5), ("seeds", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--spread", type=float, default=0.12, help="distance of the classes' centres")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where the times are written")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    x, y = drawn_features(args.clips, args.width, args.classes, args.spread)
    folds = rotating_folds(args.clips, args.folds)
    rows = []
    print(
        f"{args.folds} folds, {args.seeds} seeds, {args.clips} x {args.width} features, {args.classes} classes; "
        f"{args.threads} threads, load {os.getloadavg()[0]:.1f}; {machine()}\n"
    )
    print("| learning rate | products | seconds (median) | all | best epoch (median, last) | accuracy |")
    print("|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.safetensors"
        save_file({"x": x}, file)
        for (name, lr), precision in product(RATES.items(), args.precisions):
            settings = LinearSettings(lr=lr, precision=precision)
            seconds = []
            for _ in range(args.repeats):
                start = time.perf_counter()
                runs = fit(
                    load_file(file)["x"],
                    y,
                    folds,
                    tuple(range(args.seeds)),
                    num_classes=args.classes,
                    settings=settings,
                )
                hits = [
                    (run.test_logits.argmax(1) == y[fold.test]).float().mean().item()
                    for fold, row in zip(folds, runs, strict=True)
                    for run in row
                ]
                seconds.append(time.perf_counter() - start)
            epochs = sorted(run.epoch for row in runs for run in row)
            median, accuracy = statistics.median(seconds), statistics.mean(hits)
            rows.append(
                {"lr": lr, "precision": precision, "seconds": seconds, "epochs": epochs, "accuracy": accuracy}
            )
            print(
                f"| {name} | {precision} | {median:.1f} | {', '.join(f'{s:.1f}' for s in seconds)} | "
                f"{epochs[len(epochs) // 2]}, {epochs[-1]} | {100 * accuracy:.1f} |",
                flush=True,
            )
    if args.json is not None:
        about = {"machine": machine(), "threads": args.threads, "rows": rows}
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
