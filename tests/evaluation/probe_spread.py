"""How far the probes' scores vary with their seed on the same features, and how long they take.

    python tests/evaluation/probe_spread.py drums.csv ... [--encoder starter] [--seeds 10]
    python tests/evaluation/probe_spread.py --esc50

The first form scores log-mel statistics and an encoder on labelled lists with knn, linear and logistic, and prints
mean, deviation, least and most over the seeds, and the CPU seconds, metrics and their intervals included, as a table:
of linear for all seeds, of the others for one. Features are kept in `features` of the current folder. The second form
takes 2,000 clips of 50 classes in 5 folds with 3,840 random features, as many as ESC-50 has with ViT-Base.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from m2dx_probes.linear import Linear

from m2dx.contract.components import Clip, Features, Fold
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import load_encoder
from m2dx.evaluation.features import FeatureCache, MeanLogMel
from m2dx.evaluation.knn import Knn
from m2dx.evaluation.logistic import Logistic
from m2dx.evaluation.runner import evaluate
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.schema import AudioSection

PROBES = {"knn": Knn(), "linear": Linear(), "logistic": Logistic()}


def spread(task: Any, encoder: Any, probe: str, seeds: int) -> str:
    """A row of the table: accuracy in percent over the seeds, and CPU seconds.

    A probe that uses no seed is run twice, with two of them.
    """
    started, values = time.process_time(), []
    for given in (tuple(range(seeds)),) if probe == "linear" else ((0,), (1,)):
        (score,) = evaluate({"own": lambda seed: encoder}, [task], {probe: PROBES[probe]}, seeds=given)
        values += score.values if len(given) > 1 else (score.mean,)
    seconds = (time.process_time() - started) / (len(values) if probe != "linear" else 1)
    told = (np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0, min(values), max(values))
    return " | ".join([*(f"{100 * value:.1f}" for value in told), f"{seconds:.1f}"])


def random_task(*, clips: int = 2000, classes: int = 50, folds: int = 5, width: int = 3840) -> ClipTask:
    """A task whose features are random, and hardly tell the classes."""
    random, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    labels = np.arange(clips) % classes
    x = torch.randn(clips, width, generator=generator)
    x[:, :classes] += 0.5 * torch.nn.functional.one_hot(torch.from_numpy(labels), classes)
    parts, made = random.permutation(clips) % folds, []
    for part in range(folds):
        others = random.permutation(np.flatnonzero(parts != part))
        held = len(others) // 10
        made.append(
            Fold(str(part), np.sort(others[held:]), np.sort(others[:held]), np.flatnonzero(parts == part))
        )
    names = tuple(f"{label:02d}" for label in range(classes))
    listed = tuple(Clip(Path(f"{row}.wav"), labels=(names[label],)) for row, label in enumerate(labels))
    task = ClipTask("esc50", listed, names, tuple(made), 5.0, "pad")
    task._features[ENCODER] = Features(x, torch.from_numpy(labels))
    return task


ENCODER = MeanLogMel(AudioSection())
"""Stands for one whose features are random."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", nargs="*", type=Path)
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--probes", nargs="*", default=list(PROBES))
    parser.add_argument("--esc50", action="store_true")
    options = parser.parse_args()
    logging.disable()
    print(
        "| task | encoder | probe | mean | sd | least | most | CPU s |\n|---|---|---|---:|---:|---:|---:|---:|"
    )
    if options.esc50:
        for probe in options.probes:
            print(f"| esc50 | random | {probe} | {spread(random_task(), ENCODER, probe, 1)} |", flush=True)
        return
    encoder = load_encoder(options.encoder)
    encoders = {"log-mel": MeanLogMel(AudioSection()).eval(), options.encoder: encoder}
    for path in options.lists:
        name, cache = path.stem, FeatureCache(Path("features"))
        task = ClipTask.from_dataset(name, CsvDataset(path=path), shared_groups="warn", cache=cache)
        for title, one in encoders.items():
            task.features(one)
            for probe in options.probes:
                print(
                    f"| {name} | {title} | {probe} | {spread(task, one, probe, options.seeds)} |", flush=True
                )


if __name__ == "__main__":
    main()
