"""The recipes for what a user has, an encoder or a domain: `m2dx check` passes them, they train and resume."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recipe_files import RECIPES
from rich.console import Console
from test_recipes_runs import QUICK, checked

from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import load_encoder
from m2dx.jobs.train import make_trainer
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer

ADAPT = sorted(f"adapt/{path.stem}" for path in (RECIPES / "adapt").glob("*.yaml"))
ONE = Processes(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("name", ADAPT)
def test_a_recipe_passes_m2dx_check_trains_and_resumes(
    name: str,
    load: Callable[..., Recipe],
    plugin_host: PluginHost,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load(name)
    text = checked(recipe, plugin_host, monkeypatch)
    assert all(f"│ {part} " in text for part in ("m2d", *recipe.tasks, "total"))
    few = [of for of in QUICK if not of.startswith("model.depth")] + ["train.precision=fp32"]

    def trained(epochs: float, *, resume: bool = False) -> Trainer:
        recipe = load(name, *few, f"train.epochs={epochs}", "evaluation=null")
        trainer = make_trainer(recipe, plugin_host, ONE, console, resume=resume)
        trainer.fit()
        return trainer

    assert trained(0.5).step == 2
    metrics = trained(1.0, resume=True).watch
    assert trained(1.0, resume=True).step == 4 and metrics.first_not_finite() is None
    page = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert f"]({name}.yaml)" in page


def test_the_student_is_smaller_than_its_teacher(
    load: Callable[..., Recipe], plugin_host: PluginHost
) -> None:
    recipe = load("adapt/distil")
    run = prepare(recipe, plugin_host, ONE, Console(quiet=True), measure=False)
    sizes = [
        sum(p.numel() for p in of.parameters())
        for of in (run.model.masked_model.online, load_encoder("starter").encoder)
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_the_domain_has_half_of_the_clips(load: Callable[..., Recipe], plugin_host: PluginHost) -> None:
    recipe = load("adapt/replay")
    clips = prepare(recipe, plugin_host, ONE, Console(quiet=True), measure=False, initialise=False).clips
    listed = (recipe.data.sets["domain"].dataset.path.parent / "drums.csv").read_text().splitlines()
    domain = {Path(line.split(",")[0]).name for line in listed if ",train," in line}
    drawn = [clips[number].path.name in domain for number in clips.draws.tolist()]
    assert (sum(drawn), len(drawn)) == (4 * 230, 4 * 230 + 882)
