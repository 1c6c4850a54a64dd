"""What the commands train, evaluate and export do, for Python: the same work, with a typed result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from m2dx.contract.components import Score
from m2dx.contract.host import PluginHost
from m2dx.contract.package import STARTER, find_encoder
from m2dx.encoder.weights import export_encoder, read_weights
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.results.scores import read_scores
from m2dx.results.verdict import verdict
from m2dx.training.monitor import TrainingSummary
from m2dx.training.run_folder import Resume

_QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Outcome:
    """What `m2dx.train` and `m2dx.evaluate` give."""

    folder: Path  # of the run with report.html, or of the evaluation with scores.json
    encoder: Path | None  # None: a signal stopped the training, which `resume` continues
    scores: tuple[Score, ...]
    """Of the encoder and its baselines; none where the recipe evaluates nothing, and in torchrun's other processes."""
    verdict: str  # what the scores mean, in a sentence or two
    summary: TrainingSummary | None = None  # None: nothing was trained


def train(
    recipe: Recipe | str | Path,
    *,
    resume: Resume = False,
    overwrite: bool = False,
    console: Console = _QUIET,
    host: PluginHost | None = None,
) -> Outcome:
    """Trains, exports, evaluates and writes the page as `m2dx train` does, from a recipe's file or a loaded one.

    `console` shows the progress; by default nothing is printed. `host` None: the installed plugins. Raises
    the errors of the command, such as RecipeError.
    """
    from m2dx.jobs.train import run_recipe

    loaded, host = _loaded(recipe, host)
    summary = run_recipe(loaded, host, console, resume=resume, overwrite=overwrite)
    folder, done = loaded.output / loaded.name, summary.stopped_by is None
    scored = done and loaded.evaluation.tasks and os.environ.get("RANK", "0") == "0"  # the others do not wait
    scores = read_scores(folder / "scores.json") if scored else []
    return Outcome(folder, folder / "encoder" if done else None, tuple(scores), verdict(scores), summary)


def evaluate(
    encoder: str | Path,
    recipe: Recipe | str | Path,
    *,
    console: Console = _QUIET,
    host: PluginHost | None = None,
) -> Outcome:
    """Scores an encoder and its baselines as the recipe's evaluation section says, as `m2dx evaluate` does.

    `host` None: the installed plugins.
    """
    from m2dx.encoder.audio import load_any_encoder
    from m2dx.results.scoring import Scoring, folder_of_encoder, training_of

    (loaded, host), path = _loaded(recipe, host), find_encoder(encoder)
    network = load_any_encoder(path, host)
    training = training_of(path, host)
    if training is None and path != STARTER and (learnt := _learnt_labels(path)):
        console.print(
            f"note: {path} has learnt labels ({', '.join(learnt)}); whether of these test clips is not known without "
            "its run's recipe.yaml beside it", style="yellow",
        )  # fmt: skip
    scoring = Scoring.of(loaded, host, network, training=training)
    folder = folder_of_encoder(loaded.output / loaded.name / "evaluation", path)
    scores = scoring.run(network, console, folder)
    return Outcome(folder, path, tuple(scores), verdict(scores))


def export(checkpoint: str | Path, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a checkpoint's encoder (or that of a run's newest one) to a folder, as `m2dx export` does; the folder."""
    return export_encoder(find_encoder(checkpoint), Path(folder), overwrite=overwrite)


def _learnt_labels(encoder: Path) -> list[str]:
    """Tasks of its training that learnt labels, other than which recording a clip is of."""
    config = read_weights(encoder).config
    tasks, known = (config.recipe or {}).get("tasks", {}), {None, *(config.label_names or {})}
    learnt = {name: task["offline_encoder"] or {} for name, task in tasks.items()}
    return [name for name, of in learnt.items() if of.get("name") == "labels" and of.get("dataset") in known]


def _loaded(recipe: Recipe | str | Path, host: PluginHost | None) -> tuple[Recipe, PluginHost]:
    host = PluginHost.discover() if host is None else host
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe, host=host), host
