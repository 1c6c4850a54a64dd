"""What `m2dx specialise` said of recordings, beside a fuller comparison.

    python benchmarks/verdicts.py FOLDER [FOLDER ...] [--seeds 1 2] [--divisions 10] [--json OUT]

Training: what the search chose is trained again with each of the seeds; its gain is the mean over these and its own, on
the test clips, and where the search has trained it on these, too, on those that it was trained on first. Encoders at
hand: each is scored on new divisions of all labelled clips, groups whole, two fifths for the test; the gain on a clip
is the mean over the divisions that test it. Of the best random network, the least sure of three seeds counts. All gains
have the bootstrap's interval over clips and groups, and the rule of the search makes a verdict of them. Started again,
it keeps what is done.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timing
import yaml
from m2dx_specialise.encoders import encoder_of
from m2dx_specialise.judge import PLAIN, RANDOM, Gain, best_of, decide, score
from m2dx_specialise.parts import Parts
from m2dx_specialise.search import DIVISION, POOL, RANDOM_SEEDS
from m2dx_specialise.state import STATE_FILE
from m2dx_specialise.training import train
from numpy.typing import NDArray
from rich.console import Console

import m2dx
from m2dx.contract.atomic import replace_json
from m2dx.contract.components import Clip, ClipEncoder, Fold
from m2dx.data.division import deal
from m2dx.encoder.audio import random_like
from m2dx.evaluation.bootstrap import Bootstrap

TEST = 0.4
"""Share of a division that is tested."""
Right = NDArray[np.float64]
"""Of each clip, the mean over scores of whether it is right; NaN: none has tested it."""


def divisions(task: m2dx.ClipTask, count: int) -> m2dx.ClipTask:
    """The task with new divisions into training and test part."""
    folds = []
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(
            len(task.clips)
        )  # deal gives the first of equals first
        part = deal([task.clips[row] for row in order], [1 - TEST, TEST])
        train, test = (np.sort(order[part == which]) for which in (0, 1))
        folds.append(Fold(str(seed), train, test[:0], test))
    return replace(task, folds=tuple(folds))


def right(
    encoder: ClipEncoder, task: m2dx.ClipTask, name: str, settings: dict[str, Any] | None = None
) -> Right:
    """Over the divisions; without settings of the regression, each chooses its own."""
    found = []
    for fold in task.folds:
        row = np.full(len(task.clips), np.nan)
        said = score(encoder, replace(task, folds=(fold,)), name, settings).predictions
        row[fold.test] = [item.label in item.clip.labels for item in said]
        found.append(row)
    return over(found)


def over(rows: list[Right]) -> Right:
    """The mean of each clip, of the rows that test it."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        mean: Right = np.nansum(rows, axis=0) / known.sum(0)
    return mean


def gain(own: Right, rival: Right, clips: tuple[Clip, ...]) -> Gain:
    """In points, over the clips that are tested."""
    rows = np.flatnonzero(~np.isnan(own + rival))
    apart = 100 * (own - rival)[rows]
    draws = Bootstrap.of([clips[row] for row in rows])
    return Gain(*draws.intervals(lambda weights: {"gain": weights @ apart / weights.sum(1)})["gain"].tolist())


def compare(folder: Path, seeds: list[int], count: int) -> dict[str, Any]:
    """One search."""
    said = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    parts = Parts.read(folder / DIVISION, folder / POOL)
    again = said.get("again")
    task, own = parts.task("test", folder / "features"), list[Right]()
    folds = (*task.folds, *filter(None, [parts.back(task) if again else None]))
    tests = [replace(task, folds=(fold,)) for fold in folds]
    names, winner = list(said["baselines"]), said["winner"]
    random = [name for name in names if name.startswith(RANDOM)]
    starts = [name for name in names if name not in (PLAIN, *random)]
    start, untrained = (best_of({name: said["baselines"][name] for name in of}) for of in (starts, random))
    ran = {} if winner is None else {winner: said["runs"][winner]} | ({again["name"]: again} if again else {})
    for seed in [None, *seeds] if winner else []:
        told = []
        for run, test in zip(ran, tests, strict=True):
            name = run
            if seed is not None:
                name = f"{run}-seed{seed}"
                recipe = yaml.safe_load((folder / "runs" / run / "recipe.yaml").read_text(encoding="utf-8"))
                recipe |= {"name": name, "output": str(folder / "runs"), "seed": seed}
                train(recipe, m2dx.PluginHost.discover(), Console())
            encoder = encoder_of(name, folder, starts)
            told.append(right(encoder, test, name, ran[run]["settings"]))
        own.append(over(told))
    both = replace(task, folds=folds)
    once = {name: right(encoder_of(name, folder, starts), both, name) for name in names}
    new = divisions(task, count)
    often = {name: right(encoder_of(name, folder, starts), new, name) for name in names}
    gains = {name: gain(over(own), once[name], task.clips) for name in names if own}
    above = {name: gain(often[start], often[name], task.clips) for name in (PLAIN, untrained)}
    network = encoder_of(untrained, folder, starts)
    seed = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["request"]["seed"]
    alike = {
        other: right(random_like(network, seed=other), new, f"{untrained} seed {other}")
        for other in range(seed + 1, seed + RANDOM_SEEDS)
    }
    lucky = [gain(of, often[PLAIN], task.clips) for of in (often[untrained], *alike.values())]
    truth = decide(gains, start, above, min(lucky, key=lambda of: of.low))
    return {
        "recordings": folder.name,
        "verdict": said["kind"],
        "fuller": truth.kind,
        **{f"trained - {name}": gains[name].text if gains else None for name in names},
        **{f"{start} - {name}": above[name].text for name in above},
        f"{untrained} - {PLAIN}": "; ".join(of.text for of in lucky),
        "sentence": said["sentence"],
        "fuller sentence": truth.sentence,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = timing.options_of(__doc__, recipe_fields=False)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--divisions", type=timing.at_least(1), default=10)
    options = parser.parse_args(arguments)

    def measure() -> timing.Tables:
        rows = []
        for folder in options.folders:
            done = folder / "fuller.json"
            if not done.exists():
                replace_json(done, compare(folder, options.seeds, options.divisions))
            rows.append(json.loads(done.read_text(encoding="utf-8")))
        return {"What the search said, beside a fuller comparison": rows}

    return timing.give(options, measure)


if __name__ == "__main__":
    sys.exit(main())
