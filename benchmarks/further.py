"""Further pre-training on heart sounds with and without teacher and noise, scored by checkpoint, over several seeds.

    python benchmarks/further.py --start RUN [--runs DIR] [--seeds 0 1 2] [--classifiers 3] [--json OUT]
                                 [KEY.PATH=VALUE ...]

RUN is a run of benchmarks/recipes/kit_pool.yaml. As in the paper, one pre-trained encoder goes on with several seeds.
Runs and scores that DIR holds already are not made again. The tables have a row per condition and a column per
checkpoint, the first of which is the encoder that all go on from: table XIII and figure 5 in small.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from seeds import machine

from m2dx import half_width_95, load_encoder
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import random_like
from m2dx.encoder.checkpoint import Checkpoint, CheckpointFolder
from m2dx.evaluation.runner import evaluate
from m2dx.jobs.train import run_recipe
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.recipe.schema import Recipe
from m2dx.results.scoring import Scoring
from m2dx.training.run_folder import as_begun

RECIPES = Path(__file__).parent / "recipes"
CONDITIONS = {
    "m2d-noise": ("heart_m2d.yaml", ()),
    "m2d-clean": ("heart_m2d.yaml", ("noise=null",)),
    "m2dx-noise": ("heart_m2d_x.yaml", ()),
    "m2dx-clean": ("heart_m2d_x.yaml", ("noise=null",)),
}
"""Condition -> recipe and overrides."""

Scores = dict[str, float]
"""Task -> accuracy, the mean over the classifiers."""


def score(
    path: Path, recipe: Recipe, host: PluginHost, *, kind: str = "scores", random_seed: int | None = None
) -> Scores:
    """Linear accuracies of a checkpoint's encoder, or of random weights of its architecture; kept beside it."""
    settings = json.dumps([recipe.evaluation.model_dump(mode="json"), random_seed], sort_keys=True)
    key = hashlib.sha256(f"{path.resolve()} {settings}".encode()).hexdigest()[:16]
    kept = recipe.output / "further-scores" / f"{kind}-{path.stem}-{key}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    encoder = load_encoder(path)
    if random_seed is not None:
        encoder = random_like(encoder, seed=random_seed)
    scoring = Scoring.of(recipe, host)
    found = evaluate(
        {"encoder": lambda seed: encoder}, scoring.tasks(), scoring.evaluators, seeds=recipe.evaluation.seeds
    )
    scores = {entry.score.task: entry.score.mean for entry in found}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(scores))
    return scores


def of_seed(seed: int, args: argparse.Namespace, host: PluginHost, console: Console) -> dict[str, Any]:
    """Scores by condition and checkpoint's step, of the starting encoder, and of random weights."""
    os.environ["M2D_BASE"] = str(args.start.resolve())
    classifiers = [seed * args.classifiers + number for number in range(args.classifiers)]
    found: dict[str, Any] = {}
    for condition, (file, changes) in CONDITIONS.items():
        name = f"heart-{condition}-seed{seed}"
        own = [f"seed={seed}", f"name={name}", f"output={args.runs}", f"evaluation.seeds={classifiers}"]
        recipe = load_recipe(RECIPES / file, [*changes, *args.overrides, *own], host=host)
        training = recipe.model_copy(update={"evaluation": type(recipe.evaluation)()})
        folder = recipe.output / recipe.name
        if not is_finished(folder, training):
            summary = run_recipe(training, host, console, overwrite=True)
            if summary.stopped_by is not None:
                sys.exit(f"{name} was stopped by {summary.stopped_by} after step {summary.steps}: no scores")
        checkpoints = CheckpointFolder(folder / "checkpoints")
        found[condition] = {step: score(checkpoints.file(step), recipe, host) for step in checkpoints.steps()}
        start = CheckpointFolder(args.start / "checkpoints").newest()
        assert start is not None
        found["start"] = score(start, recipe, host, kind=f"seed{seed}")
        found["random"] = score(start, recipe, host, kind=f"random{seed}", random_seed=seed)
    return found


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder holds a whole run of this recipe."""
    checkpoint = CheckpointFolder(folder / "checkpoints").newest()
    if checkpoint is None or not (folder / "summary.json").exists():
        return False
    summary = json.loads((folder / "summary.json").read_text())
    began = Checkpoint.read(checkpoint).state["recipe"]
    same = began == recipe_to_mapping(as_begun(recipe, began))
    return same and summary["stopped_by"] is None and summary["steps"] == summary["total_steps"]


def interval(values: list[float]) -> str:
    """Mean and half width of the 95 % interval, in percent."""
    half = half_width_95(values)
    return f"{100 * np.mean(values):.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def tables(by_seed: list[dict[str, Any]]) -> str:
    """A Markdown table per task: conditions by checkpoint, mean and interval over the seeds."""
    steps = sorted(by_seed[0][next(iter(CONDITIONS))])
    lines = []
    for task in by_seed[0]["start"]:
        lines += [f"\n{task}\n", f"| condition | start | {' | '.join(map(str, steps))} | change at the end |"]
        lines.append("|---" * (len(steps) + 3) + "|")
        start = interval([found["start"][task] for found in by_seed])
        for condition in CONDITIONS:
            cells = [interval([found[condition][step][task] for found in by_seed]) for step in steps]
            change = interval([found[condition][steps[-1]][task] - found["start"][task] for found in by_seed])
            lines.append(f"| {condition} | {start} | {' | '.join(cells)} | {change} |")
        lines.append(f"| random weights | {interval([found['random'][task] for found in by_seed])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Further pre-training on heart sounds, by checkpoint.")
    parser.add_argument("overrides", nargs="*", help="changes to the recipes, KEY.PATH=VALUE")
    parser.add_argument("--start", type=Path, required=True, help="run whose encoder all go on from")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the new runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--classifiers", type=int, default=3, help="classifiers per encoder")
    parser.add_argument("--json", type=Path, help="where all scores are written")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    host, console = PluginHost.discover(), Console()
    by_seed = [of_seed(seed, args, host, console) for seed in args.seeds]
    print(f"\nfurther pre-training on heart sounds, seeds {args.seeds}; {machine()}")
    print(tables(by_seed))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        about = {"machine": machine(), "seeds": args.seeds, "overrides": args.overrides}
        args.json.write_text(json.dumps({**about, "scores": by_seed}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
