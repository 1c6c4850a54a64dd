"""Trains a recipe with several seeds, pools its scores, and prints them with their 95 % confidence intervals.

    python benchmarks/seeds.py RECIPE --seeds 0 1 2 [--classifiers 5] [--scores-only | --pool-only] [--json OUT]
                               [KEY.PATH=VALUE ...]

Each seed trains its own network. Its score is the mean over `--classifiers` classifiers with seeds of their own (and,
for random weights, as many random networks), so that the interval over the seeds is that of the pre-training and not
of the classifier. The table and the JSON name the machine and the versions; docs/results.md keeps what was run.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console

import m2dx
from m2dx.contract.components import Score
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import load_encoder
from m2dx.evaluation.metrics import half_width_95
from m2dx.jobs.train import run_recipe
from m2dx.recipe.loading import load_recipe
from m2dx.results.formats import markdown
from m2dx.results.scores import read_scores, write_scores
from m2dx.results.scoring import Scoring
from m2dx.results.table import score_table


def pool(runs: list[list[Score]]) -> list[Score]:
    """One score per encoder, task, protocol and metric: mean and interval over the runs' means."""
    grouped: dict[tuple[str, str, str, str], list[Score]] = defaultdict(list)
    for scores in runs:
        for score in scores:
            grouped[score.encoder, score.task, score.protocol, score.metric].append(score)
    pooled = []
    for scores_of in grouped.values():
        values = tuple(score.mean for score in scores_of)
        ci95 = half_width_95(values) if len(values) > 1 else scores_of[0].ci95
        pooled.append(replace(scores_of[0], mean=float(np.mean(values)), ci95=ci95, values=values))
    return pooled


def machine() -> str:
    """The machine and the versions, in a line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = f"{names[0]} x {len(names)}" if names else cpu
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchaudio", "timm", "numpy"))
    return f"{date.today()}, {cpu}, Python {platform.python_version()}, m2dx {m2dx.__version__}, {packages}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a recipe with several seeds and pool the scores.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", help="changes to the recipe, KEY.PATH=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--classifiers", type=int, default=5, help="classifiers per network")
    parser.add_argument("--scores-only", action="store_true", help="score networks that are trained already")
    parser.add_argument(
        "--pool-only", action="store_true", help="pool the scores that the runs' folders hold"
    )
    parser.add_argument("--json", type=Path, help="where the pooled scores are written")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    host, console, runs, seconds = PluginHost.discover(), Console(), [], []
    for seed in args.seeds:
        classifiers = [seed * args.classifiers + number for number in range(args.classifiers)]
        overrides = [*args.overrides, f"seed={seed}", f"evaluation.seeds={classifiers}"]
        recipe = load_recipe(args.recipe, overrides, host=host)
        recipe = recipe.model_copy(update={"name": f"{recipe.name}-seed{seed}"})
        folder = recipe.output / recipe.name
        if args.pool_only:
            runs.append(read_scores(folder / "scores.json"))
            continue
        if args.scores_only:
            runs.append(Scoring.of(recipe, host).run(load_encoder(folder / "encoder"), console, folder))
            continue
        summary = run_recipe(recipe, host, console, overwrite=True)
        if summary.stopped_by is not None:
            sys.exit(f"seed {seed} was stopped by {summary.stopped_by} after step {summary.steps}: no scores")
        seconds.append(summary.seconds)
        runs.append(read_scores(folder / "scores.json"))
    pooled = pool(runs)
    print(f"\n{args.recipe.stem}, seeds {args.seeds}; {machine()}")
    if seconds:
        print(f"training took {', '.join(f'{s / 60:.1f}' for s in seconds)} min")
    print()
    print(markdown(score_table(pooled)))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_scores(pooled, args.json)
        about = {"machine": machine(), "seeds": args.seeds, "overrides": args.overrides, "seconds": seconds}
        args.json.with_suffix(".about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
