"""What the commands train, evaluate and export do, for Python: the same work, with a typed result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from m2dx.contract.components import Score
from m2dx.contract.errors import M2dxError
from m2dx.contract.host import PluginHost
from m2dx.contract.package import find_encoder
from m2dx.encoder.weights import export_encoder
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
    recipe: Recipe | str | Path, *, resume: Resume = False, overwrite: bool = False, console: Console = _QUIET
) -> Outcome:
    """Trains, exports, evaluates and writes the page as `m2dx train` does, from a recipe's file or a loaded one.

    `console` shows the progress; by default nothing is printed. Raises the errors of the command, such as RecipeError.
    """
    from m2dx.jobs.train import run_recipe

    loaded, host = _loaded(recipe)
    summary = run_recipe(loaded, host, console, resume=resume, overwrite=overwrite)
    folder, done = loaded.output / loaded.name, summary.stopped_by is None
    scored = done and loaded.evaluation.tasks and os.environ.get("RANK", "0") == "0"  # the others do not wait
    scores = read_scores(folder / "scores.json") if scored else []
    return Outcome(folder, folder / "encoder" if done else None, tuple(scores), verdict(scores), summary)


def evaluate(encoder: str | Path, recipe: Recipe | str | Path, *, console: Console = _QUIET) -> Outcome:
    """Scores an encoder and its baselines as the recipe's evaluation section says, as `m2dx evaluate` does."""
    from m2dx.encoder.audio import load_any_encoder
    from m2dx.results.scoring import Scoring, folder_of_encoder

    (loaded, host), path = _loaded(recipe), find_encoder(encoder)
    network = load_any_encoder(path)
    scoring = Scoring.of(loaded, host, network, training=_training_of(path, host))
    folder = folder_of_encoder(loaded.output / loaded.name / "evaluation", path)
    scores = scoring.run(network, console, folder)
    return Outcome(folder, path, tuple(scores), verdict(scores))


def export(checkpoint: str | Path, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a checkpoint's encoder (or that of a run's newest one) to a folder, as `m2dx export` does; the folder."""
    return export_encoder(find_encoder(checkpoint), Path(folder), overwrite=overwrite)


def _training_of(encoder: Path, host: PluginHost) -> Recipe | None:
    """The recipe of the run that this is, or that it lies in; None where none is there, or can be read here."""
    folder = encoder.resolve()
    recipes = [place / "recipe.yaml" for place in (folder, folder.parent, folder.parent.parent)]
    try:
        return next((load_recipe(recipe, host=host) for recipe in recipes if recipe.is_file()), None)
    except M2dxError:  # such as a variable that is not set here
        return None


def _loaded(recipe: Recipe | str | Path) -> tuple[Recipe, PluginHost]:
    host = PluginHost.discover()
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe, host=host), host
