"""Trains and scores recipes over several seeds, and compares them in pairs of a seed.

    python benchmarks/seeds.py RECIPE [RECIPE ...] [KEY.PATH=VALUE ...] [--case NAME RECIPE [KEY.PATH=VALUE ...]]...
                               [--seeds 0 1 2] [--classifiers 5] [--json OUT]
                               [--scores-only | --pool-only | --untrained]

Each seed trains a network of its own. Its score is the mean over `--classifiers` classifiers with seeds of their own
(and, for random weights, as many random networks), so that an interval over the seeds is that of the training and not
of the classifier. Differences are taken seed by seed: to the first case, and to the baselines of the same run. Started
again after a stop, it keeps what is finished and resumes the run that is not.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timing
from rich.console import Console

from m2dx.contract.components import Score
from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import load_encoder, random_encoder
from m2dx.encoder.checkpoint import CheckpointFolder, read_checked
from m2dx.evaluation.metrics import half_width_95
from m2dx.jobs.train import run_recipe
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.recipe.schema import Recipe
from m2dx.results.scores import read_scores
from m2dx.results.scoring import PRETRAINED, Scoring
from m2dx.training.run_folder import as_started

Row = tuple[str, str, str]
"""Task, protocol and metric of a score."""


@dataclass(frozen=True)
class Case:
    """One of what is compared."""

    name: str
    recipe: Path
    overrides: tuple[str, ...] = ()


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[Case]]:
    """The options and the cases."""
    parser = timing.options_of(__doc__, recipe_fields=False)
    add = parser.add_argument
    add("given", nargs="*", metavar="RECIPE or KEY.PATH=VALUE", help="cases, and fields of all cases")
    add(
        "--case",
        nargs="+",
        action="append",
        default=[],
        metavar="WORD",
        help="name, recipe, fields of a case",
    )
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--classifiers", type=timing.at_least(1), default=5, help="classifiers of each network")
    add("--scores-only", action="store_true", help="score networks that are trained already, anew")
    add("--pool-only", action="store_true", help="take the scores that the folders of runs hold")
    add(
        "--untrained",
        action="store_true",
        help="score random networks instead; data.mean and data.std must be given",
    )
    options = parser.parse_intermixed_args(arguments)
    shared = tuple(word for word in options.given if "=" in word)
    cases = [Case(Path(word).stem, Path(word), shared) for word in options.given if "=" not in word]
    for words in options.case:
        if len(words) < 2:
            parser.error(f"--case must have a name and a recipe, but has {' '.join(words)}")
        cases.append(Case(words[0], Path(words[1]), (*shared, *words[2:])))
    names = [case.name for case in cases]
    if not cases or len(set(names)) < len(names) or len(set(options.seeds)) < len(options.seeds):
        parser.error(
            f"cases and seeds must be one or more, no two alike, but are {names} and {options.seeds}"
        )
    return options, cases


def scores_of(case: Case, seed: int, options: argparse.Namespace, host: PluginHost) -> list[Score]:
    """The scores of one network and of its baselines, which is trained and scored where it is not yet."""
    classifiers = [seed * options.classifiers + number for number in range(options.classifiers)]
    own = [f"seed={seed}", f"evaluation.seeds={classifiers}"]
    recipe = load_recipe(case.recipe, [*case.overrides, *own], host=host)
    name = recipe.name if case.name == case.recipe.stem else f"{recipe.name}-{case.name}"
    name += "-untrained" if options.untrained else ""
    recipe = recipe.model_copy(update={"name": f"{name}-seed{seed}"})
    folder, console = recipe.output / recipe.name, Console(stderr=True)
    if options.untrained:
        mean, std = recipe.data.mean, recipe.data.std
        if mean is None or std is None:
            raise RecipeError("--untrained needs data.mean and data.std, of the log-mels")
        network = random_encoder(recipe.audio, recipe.model, mean=mean, std=std, seed=seed)
        found = Scoring.of(recipe, host).run(network, console, folder)
    elif options.scores_only:
        found = Scoring.of(recipe, host).run(load_encoder(folder / "encoder"), console, folder)
    else:
        if not options.pool_only and not is_finished(folder, recipe):
            summary = run_recipe(recipe, host, console, resume="or_start")
            if summary.stopped_by is not None:
                sys.exit(f"{recipe.name} was stopped by {summary.stopped_by}; start this again to go on")
        found = read_scores(folder / "scores.json")
    return [replace(score, encoder=case.name) if score.encoder == PRETRAINED else score for score in found]


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder holds a whole run with its scores. RecipeError where it holds one of another recipe."""
    newest = CheckpointFolder(folder / "checkpoints").newest()
    if newest is None:
        return False
    state = read_checked(newest)
    began, now = state["recipe"], recipe_to_mapping(as_started(recipe, state["recipe"]))
    if changed := sorted(key for key in began.keys() | now.keys() if began.get(key) != now.get(key)):
        raise RecipeError(
            f"{folder} must hold a run of {recipe.name} as its recipe is now, but {', '.join(changed)} differ; "
            "move it away, or use --scores-only or --pool-only"
        )
    return (folder / "scores.json").exists()


def by_encoder(runs: Sequence[Sequence[Score]]) -> dict[tuple[str, Row], list[Score]]:
    """The scores of each encoder in each row, by run."""
    found: dict[tuple[str, Row], list[Score]] = {}
    for score in (score for run in runs for score in run):
        found.setdefault((score.encoder, (score.task, score.protocol, score.metric)), []).append(score)
    return found


def pool(runs: Sequence[Sequence[Score]]) -> list[Score]:
    """One score per encoder and row: mean and interval over the means of the runs; of one run, its own score."""
    pooled = []
    for scores in by_encoder(runs).values():
        values = tuple(score.mean for score in scores)
        pooled.append(mean_score(scores[0], values) if len(values) > 1 else scores[0])
    return pooled


def differences(runs: Mapping[str, Sequence[Sequence[Score]]]) -> list[Score]:
    """Each case less the first one, and less the baselines of its own runs; runs are by case, then by seed."""
    first = next(iter(runs))
    found = []
    for case, own_runs in runs.items():
        own, firsts = by_encoder(own_runs), by_encoder(runs[first])
        for encoder, row in own:
            other = first if encoder == case else encoder
            pair = own[case, row], (firsts if encoder == case else own).get((other, row), [])
            if other == case or len(pair[0]) != len(pair[1]):
                continue
            values = tuple(one.mean - two.mean for one, two in zip(*pair, strict=True))
            found.append(mean_score(replace(pair[0][0], encoder=f"{case} - {other}"), values))
    return found


def mean_score(score: Score, values: tuple[float, ...]) -> Score:
    """A score like this one, of a value by seed."""
    return replace(score, mean=float(np.mean(values)), ci95=half_width_95(values), values=values)


def measure(options: argparse.Namespace, cases: Sequence[Case]) -> timing.Tables:
    """Trains and scores, the cases of a seed in turns; scores and differences, in percent with 95 % intervals."""
    host = PluginHost.discover()
    runs: dict[str, list[list[Score]]] = {case.name: [] for case in cases}
    for seed in options.seeds:
        for case in cases:
            runs[case.name].append(scores_of(case, seed, options, host))
    rows = {name: [row_of(score) for score in pool(found)] for name, found in runs.items()}
    return {**rows, "Differences by seed": [row_of(score) for score in differences(runs)]}


def row_of(score: Score) -> dict[str, Any]:
    """A row of a table, in percent."""
    return {
        "task": score.task,
        "protocol": f"{score.protocol} ({score.metric})",
        "encoder": score.encoder,
        "mean": 100 * score.mean,
        "± 95 %": None if score.ci95 is None else 100 * score.ci95,
        "by seed": ", ".join(f"{100 * value:.1f}" for value in score.values),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, scores, prints; 1 where m2dx refuses something."""
    options, cases = parse(arguments)
    logging.basicConfig(level=logging.WARNING)
    return timing.give(options, lambda: measure(options, cases))


if __name__ == "__main__":
    sys.exit(main())
