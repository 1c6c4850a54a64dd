"""The recipes for what a user has, an encoder or a domain: `m2dx check` passes them, they train and resume."""

from collections.abc import Callable

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
from m2dx.training.trainer import Trainer

SOUNDS = RECIPES.parent / "examples" / "sounds"
ONE = Processes(0, 1, torch.device("cpu"))


def student_is_smaller(trainer: Trainer) -> bool:
    student, teacher = trainer.model.masked_model.online, load_encoder("starter").encoder
    sizes = [sum(p.numel() for p in of.parameters()) for of in (student, teacher)]
    return sizes[0] < 0.6 * sizes[1]


def domain_has_half_of_the_clips(trainer: Trainer) -> bool:
    listed = (SOUNDS / "drums.csv").read_text(encoding="utf-8").splitlines()
    domain = {SOUNDS / line.split(",")[0] for line in listed if ",train," in line}
    clips = trainer.run.clips
    drawn = [clips[number].path.resolve() in domain for number in clips.draws.tolist()]
    return (sum(drawn), len(drawn)) == (4 * 230, 4 * 230 + 882)


PROMISES = {"adapt/distil": student_is_smaller, "adapt/replay": domain_has_half_of_the_clips}


@pytest.mark.parametrize("name", PROMISES)
def test_a_recipe_passes_m2dx_check_trains_and_resumes(
    name: str,
    load: Callable[..., Recipe],
    plugin_host: PluginHost,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load(name, "train.batch_size=4")
    text = checked(recipe, plugin_host, monkeypatch)
    assert all(f"│ {part} " in text for part in ("m2d", *recipe.tasks, "total"))
    few = [of for of in QUICK if not of.startswith("model.depth")]

    def trained(epochs: float, *, resume: bool = False) -> Trainer:
        recipe = load(name, *few, f"train.epochs={epochs}", "evaluation=null")
        trainer = make_trainer(recipe, plugin_host, ONE, console, resume=resume)
        trainer.fit()
        return trainer

    assert trained(0.5).step == 2
    trainer = trained(1.0, resume=True)
    assert trainer.step == 4 and PROMISES[name](trainer)


def test_the_page_lists_them() -> None:
    assert sorted(PROMISES) == sorted(f"adapt/{path.stem}" for path in (RECIPES / "adapt").glob("*.yaml"))
    page = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert all(f"]({name}.yaml)" in page for name in PROMISES)
