"""The examples: M2D without a recipe, and a method as a plugin that trains, resumes, exports and is evaluated."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import m2dx
from m2dx.jobs import core
from m2dx.jobs.train import run_recipe
from m2dx.testing import check_method

EXAMPLES = Path(__file__).parents[1] / "examples"


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_m2d_trains_without_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "m2d_in_100_lines.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 100
    losses = module_at(path).main(steps=12, clips=24)
    assert len(losses) == 12 and losses[-1] < losses[0]
    assert "of the same instrument" in capsys.readouterr().out


@pytest.fixture(scope="module")
def jepa() -> ModuleType:
    return module_at(EXAMPLES / "plugins" / "m2dx_jepa.py")


def test_the_method_of_a_plugin_keeps_the_contract(jepa: ModuleType) -> None:
    check_method(jepa.JEPA)
    check_method(jepa.JEPA, beta=0.1)


@pytest.mark.usefixtures("no_page")
def test_the_method_of_a_plugin_trains_resumes_and_is_evaluated(
    jepa: ModuleType, tiny_recipe: Any, few_notes: Path, console: Any
) -> None:
    host = m2dx.PluginHost({"m2dx": core, "jepa": jepa})
    task = f"{{dataset: {{name: csv, path: {few_notes}}}}}"
    options = [
        "model.method={name: jepa, beta: 0.5}",
        "train.epochs=2",
        "train.checkpoint_every=5",
        f"evaluation={{tasks: {{instrument: {task}}}, evaluators: {{knn: knn}}, baselines: []}}",
    ]

    def run(name: str, **arguments: Any) -> Path:
        recipe = tiny_recipe(f"name={name}", *options, labels=True, with_host=host)
        run_recipe(recipe, host, console, **arguments)
        folder: Path = recipe.output / recipe.name
        return folder

    straight = run("straight")
    halved = shutil.copytree(straight, straight.with_name("halved"))
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss_jepa"] < lines[0]["loss_jepa"] and lines[-1]["ema_decay"] == pytest.approx(0.999)
    for file in (halved / "checkpoints").glob("step-00000010.*"):  # as if it had been stopped before
        file.unlink()
    run("halved", resume=True)
    one, other = (m2dx.load_encoder(folder / "encoder").encoder.state_dict() for folder in (straight, halved))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    kept, again = (
        torch.load(folder / "checkpoints" / "step-00000010.pt", weights_only=True)["model"]
        for folder in (straight, halved)
    )
    assert kept.keys() == again.keys() and all(torch.equal(value, again[key]) for key, value in kept.items())
    assert all(torch.equal(value, kept[f"masked_model.online.{name}"]) for name, value in one.items())
    assert any(key.startswith("masked_model.target.trunk.") for key in kept)
    assert "knn" in (straight / "scores.json").read_text()
