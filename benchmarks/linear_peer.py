"""Compares the evaluator `linear` with scikit-learn's logistic regression on the same features and divisions.

    python benchmarks/linear_peer.py ENCODER RECIPE [KEY.PATH=VALUE ...] [--seeds 6] [--tasks NAME ...] [--json OUT]

The tasks are those of the recipe's evaluation section. Both see features that are standardised by the training clips.
The regression (L2, C = 1, run to convergence) is trained on the training clips alone; `linear` also sees the
validation part, to stop. Accuracy in percent, mean over the folds; of `linear` also over the seeds, with half of the
95 % confidence interval.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from pathlib import Path

import numpy as np
from seeds import machine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import m2dx
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import AudioEncoder
from m2dx.evaluation.linear import Linear
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.loading import load_recipe
from m2dx.results.scoring import Scoring


def regression_accuracy(encoder: AudioEncoder, task: ClipTask) -> float:
    """Accuracy of logistic regression, mean over the folds."""
    found, accuracies = task.features(encoder), []
    labels = found.y.numpy()
    for fold in task.folds:
        inputs = m2dx.Standardiser.fit(found.x[fold.train])(found.x).numpy()
        model = LogisticRegression(C=1.0, max_iter=10_000).fit(inputs[fold.train], labels[fold.train])
        accuracies.append(model.score(inputs[fold.test], labels[fold.test]))
    return float(np.mean(accuracies))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare linear evaluation with logistic regression.")
    parser.add_argument("encoder", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", help="changes to the recipe, KEY.PATH=VALUE")
    parser.add_argument("--seeds", type=int, default=6, help="classifiers per fold")
    parser.add_argument("--tasks", nargs="+", help="names of the recipe's tasks; default all")
    parser.add_argument("--json", type=Path, help="where the rows are written")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    warnings.filterwarnings("error", category=ConvergenceWarning)
    host = PluginHost.discover()
    scoring = Scoring.of(load_recipe(args.recipe, args.overrides, host=host), host)
    encoder = m2dx.load_encoder(args.encoder)
    rows = []
    print(f"linear (seeds 0 to {args.seeds - 1}) and logistic regression; {machine()}\n")
    print("| task | classes | training clips | linear | logistic regression | difference |")
    print("|---|---:|---:|---:|---:|---:|")
    for task in scoring.tasks():
        if args.tasks and task.name not in args.tasks:
            continue
        (score,) = Linear().evaluate(encoder, task, seeds=tuple(range(args.seeds)))
        peer = regression_accuracy(encoder, task)
        clips = round(float(np.mean([len(fold.train) for fold in task.folds])))
        rows.append({"task": task.name, "linear": score.mean, "ci95": score.ci95, "regression": peer})
        print(
            f"| {task.name} | {len(task.label_names)} | {clips} | {100 * score.mean:.1f} ± "
            f"{100 * (score.ci95 or 0):.1f} | {100 * peer:.1f} | {100 * (score.mean - peer):+.1f} |",
            flush=True,
        )
    if args.json is not None:
        about = {"machine": machine(), "encoder": str(args.encoder), "seeds": args.seeds, "rows": rows}
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
