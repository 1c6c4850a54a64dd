"""Measures how well MSM-MAE reconstructs masked patches under the patterns of MSM-MAE's figure 3.

    python benchmarks/reconstruction.py --runs RUN0 RUN1 RUN2 --lists a.csv:test b.csv [--most 200] [--json OUT]

Vertical, horizontal and chessboard mask every other patch, and then, with visible and masked swapped, the others, so
that each patch of a clip is reconstructed once under every pattern; `random` does the same with random halves. Given is
the mean squared error of the masked patches of standardised log-mels, over the clips of a list, then over the runs with
its 95 % confidence interval. The last columns say in how many clips chessboard has a smaller error than another pattern
(mean over the runs). RUN is a run of method msm_mae; `LIST:SPLIT` takes the clips of one split.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from m2dx.data.datasets import CsvDataset
from m2dx.evaluation.metrics import half_width_95
from m2dx.model.patches import patchify
from m2dx.report import PatchMask, Reconstructor, Sound, load_reconstructor
from m2dx.report.sounds import read_sound

PATTERNS = ("random", "vertical", "horizontal", "chessboard")
BATCH = 32


def read_list(name: str, *, most: int, sample_rate: int) -> list[Sound]:
    """The clips of `LIST` or `LIST:SPLIT`, at most `most`, evenly over the list."""
    path, _, split = name.partition(":")
    clips = CsvDataset(path=Path(path)).clips(split or None)
    count = min(most, len(clips))
    chosen = [clips[i * len(clips) // count] for i in range(count)]
    return [read_sound(clip.path, sample_rate, start=clip.start) for clip in chosen]


def masks_of(pattern: str, grid: tuple[int, int], position: int) -> list[NDArray[np.bool_]]:
    """A mask and its opposite, which together mask each patch once; random ones by the position of a batch."""
    mask = PatchMask(pattern, ratio=0.5, seed=2 * position).is_masked(grid)
    return [mask, ~mask]


def clip_errors(model: Reconstructor, sounds: Sequence[Sound], pattern: str) -> NDArray[np.float64]:
    """Mean squared error over the patches of each clip, each reconstructed while it was masked."""
    errors = []
    for first in range(0, len(sounds), BATCH):
        logmel = model.standard_logmel(sounds[first : first + BATCH])
        total = torch.zeros(len(logmel))
        for masked in masks_of(pattern, model.grid, first):
            difference = patchify(model.predict(logmel, masked) - logmel, model.model.grid.patch_size)
            total += (
                difference.square().mean(dim=2).sum(dim=1)
            )  # (B, P, values) -> (B,); visible patches add 0
        errors.append(total.double().numpy() / (model.grid[0] * model.grid[1]))
    return np.concatenate(errors)


def table(measured: dict[str, dict[str, NDArray[np.float64]]]) -> str:
    """Markdown: a row for each list; errors by list and pattern are (runs, clips)."""
    others = [pattern for pattern in PATTERNS if pattern != "chessboard"]
    lines = [
        "| clips | n | "
        + " | ".join(PATTERNS)
        + " | "
        + " | ".join(f"chessboard < {o}" for o in others)
        + " |",
        "|---|---:|" + "---:|" * (len(PATTERNS) + len(others)),
    ]
    for name, errors in measured.items():
        best = errors["chessboard"]
        cells = [_interval(errors[pattern].mean(axis=1)) for pattern in PATTERNS]
        cells += [f"{np.mean(best < errors[other]):.0%}" for other in others]
        lines.append(f"| {name} | {best.shape[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _interval(values: NDArray[np.float64]) -> str:
    half = half_width_95(values.tolist())
    return f"{values.mean():.4f}" + ("" if half is None else f" ± {half:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Reconstruction error by masking pattern.")
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--lists", nargs="+", required=True, help="CSV files of clips, or FILE:SPLIT")
    parser.add_argument("--most", type=int, default=200, help="clips of each list, at most")
    parser.add_argument("--json", type=Path, help="where the mean errors are written")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    models = [load_reconstructor(run) for run in args.runs]
    measured: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name in args.lists:
        sounds = read_list(name, most=args.most, sample_rate=models[0].sample_rate)
        label = Path(name.partition(":")[0]).stem
        measured[label] = {
            pattern: np.stack([clip_errors(model, sounds, pattern) for model in models])
            for pattern in PATTERNS
        }
    print(table(measured))
    if args.json is not None:
        means = {
            name: {pattern: values.mean(axis=1).tolist() for pattern, values in errors.items()}
            for name, errors in measured.items()
        }
        about = {"runs": [str(run) for run in args.runs], "most": args.most, "mse_by_run": means}
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
