"""Every point is checked before anything is written; what is on the disk must be of the same recipes."""

import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from m2dx_sweep.grid import parse_grid
from m2dx_sweep.running import Options, Point, gpu_groups, points_of, run_sweep
from m2dx_sweep.table import SweptGrid

from m2dx.cli.terminal import Terminal
from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe, recipe_to_mapping, recipe_to_yaml

Planner = Callable[..., list[Point]]
Sweep = Callable[..., str]


@pytest.fixture
def script(plan: Planner, host: PluginHost, tmp_path: Path) -> Sweep:
    """Runs `m2dx sweep ... --slurm`, which starts nothing; what it prints."""

    def make(*arguments: str) -> str:
        grid = parse_grid([f"output={tmp_path / 'runs'}", *arguments])
        console = Terminal(record=True, width=200, file=io.StringIO())
        run_sweep(tmp_path / "tiny.yaml", grid, Options(slurm=tmp_path / "a.sh"), host=host, console=console)
        return console.export_text()

    return make


def pretend_run(point: Point, **changes: Any) -> Path:
    """What a run of a point would have left: its recipe, with the measured statistics."""
    started = point.recipe.model_copy(
        update={"data": point.recipe.data.model_copy(update={"mean": -7.5, "std": 3.5}), **changes}
    )
    point.folder.mkdir(parents=True)
    (point.folder / "recipe.yaml").write_text(recipe_to_yaml(started), encoding="utf-8")
    return point.folder


def test_each_point_is_the_recipe_with_its_values(plan: Planner, tmp_path: Path) -> None:
    planned = plan("model.mask_ratio=0.6,0.8", "train.epochs=1", "seed=0,1")
    assert planned[0].recipe.output == tmp_path / "runs" / "tiny-mask_ratio"
    found = [
        (p.recipe.model.mask_ratio, p.recipe.seed, p.recipe.train.epochs, p.recipe.name) for p in planned
    ]
    assert found == [
        (ratio, seed, 1.0, f"mask_ratio-0p{round(10 * ratio)}-seed-{seed}")
        for ratio in (0.6, 0.8)
        for seed in (0, 1)
    ]
    assert {point.recipe.output for point in planned} == {planned[0].recipe.output}
    assert plan("seed=0,1")[0].recipe.output.name == "tiny-seed"
    assert plan("seed=0,1", "name=mine")[0].recipe.output.name == "mine"


def test_keep_is_the_recipes_own_value(plan: Planner) -> None:
    planned = plan(
        "noise={ratio: 0.5, dataset: {name: csv, path: x.csv}}", "noise.ratio=keep,0.2", "name=eta"
    )
    assert [p.recipe.noise.ratio for p in planned] == [0.5, 0.2]  # type: ignore[union-attr]
    off = plan("model.predictor=keep,null")
    assert [p.recipe.model.predictor.embed_dim for p in off] == [
        24,
        512,
    ]  # null: the section's defaults


def test_all_points_that_are_wrong_are_told_at_once_and_nothing_is_written(
    plan: Planner, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        plan("model.mask_ratio=0.6,1.5", "model.patch_size=[16,16],[15,16]", "train.epoch=keep,2")
    text = str(error.value)
    assert text.startswith("some points cannot be run, so nothing was started")
    assert "mask_ratio: must be less than 1, but is 1.5" in text
    assert "must be a multiple of the patch's 15 mels" in text
    assert "unknown key" in text and "did you mean 'epochs'?" in text
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_recipe_is_told_once(plan: Planner, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(path.read_text() + "sed: 1\n")
    with pytest.raises(RecipeError) as error:
        plan("seed=0,1,2")
    assert str(error.value).count("unknown key") == 1 and "\nseed-0, seed-1, seed-2:\n" in str(error.value)


def test_points_of_one_name_are_refused(plan: Planner) -> None:
    with pytest.raises(RecipeError, match="2 points are called mask_ratio-0p8"):
        plan("model.mask_ratio=0.8,0.80")


def test_points_that_are_the_same_training_are_refused(plan: Planner) -> None:
    with pytest.raises(RecipeError, match=r"but mask_ratio-keep and mask_ratio-0p6 are the same training"):
        plan("model.mask_ratio=keep,0.6,0.8")


def test_what_trains_a_point_is_its_recipe(plan: Planner, host: PluginHost) -> None:
    for point in plan("model.mask_ratio=0.6,0.8", "model.predictor=keep,null", "train.epochs=1"):
        file, *overrides = point.arguments
        again = load_recipe(Path(file), overrides, host=host)
        assert recipe_to_mapping(again) == recipe_to_mapping(point.recipe)


def test_a_folder_with_signs_of_yaml_stays_that_folder(
    plan: Planner, host: PluginHost, tmp_path: Path
) -> None:
    odd = tmp_path / "a: b # c"
    plan("seed=0,1")
    grid = parse_grid(["seed=0,1", f"output={json.dumps(str(odd))}"])
    file, *overrides = points_of(tmp_path / "tiny.yaml", grid, host=host)[0].arguments
    assert load_recipe(Path(file), overrides, host=host).output == odd / "tiny-seed"


def test_a_run_is_a_process_of_its_own_or_torchruns(plan: Planner) -> None:
    point = plan("seed=0,1")[0]
    train = ["m2dx", "train", *point.arguments, "--resume-or-begin"]
    assert point.command(1) == [sys.executable, "-P", "-m", *train]
    assert point.command(4) == [
        *(sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m"),
        *train,
    ]


def test_the_folder_says_what_its_runs_stand_for(script: Sweep, tmp_path: Path) -> None:
    said = script("model.mask_ratio=0.6,0.8", "seed=0,1")
    folder = tmp_path / "runs" / "tiny-mask_ratio"
    assert "0 of 4 points finished" in said and f"m2dx sweep-table {shlex.quote(str(folder))}" in said
    grid = SweptGrid.read(folder)
    assert (grid.recipe, grid.keys) == ("tiny", (("model.mask_ratio",), ("seed",)))
    assert grid.points["mask_ratio-0p8-seed-1"] == {"model.mask_ratio": "0.8", "seed": "1"}
    assert os.listdir(folder / "logs") == []


def test_a_sweep_may_get_more_points_and_no_other_keys(script: Sweep, tmp_path: Path) -> None:
    script("model.mask_ratio=0.6,0.8", "name=mine")
    script("model.mask_ratio=0.5,0.6", "name=mine")
    names = [f"mask_ratio-0p{digit}" for digit in (6, 8, 5)]
    assert list(SweptGrid.read(tmp_path / "runs" / "mine").points) == names
    with pytest.raises(
        RecipeError, match=r"started with \(model.mask_ratio\), .* is over model.mask_ratio  seed"
    ):
        script("model.mask_ratio=0.6,0.8", "seed=0,1", "name=mine")


def test_a_sweep_is_not_put_into_a_run(script: Sweep, tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "recipe.yaml").touch()
    with pytest.raises(RecipeError, match="holds a run; give the sweep another name"):
        script("seed=0,1", "name=mine")


def test_a_run_of_another_recipe_is_refused_with_what_differs(plan: Planner, script: Sweep) -> None:
    grid = ("model.mask_ratio=0.6,0.8", "data.mean=null", "data.std=null")
    first, second = plan(*grid)
    pretend_run(first)
    script(*grid)  # the measured statistics are the run's own
    # threads change no result
    pretend_run(second, train=second.recipe.train.model_copy(update={"epochs": 7.0, "threads": 2}))
    with pytest.raises(RecipeError) as error:
        script(*grid)
    assert re.search(r"^  mask_ratio-0p8: train.epochs \(7.0 -> 2.0\)$", str(error.value), re.MULTILINE)
    assert "threads" not in str(error.value) and "mask_ratio-0p6" not in str(error.value)


def test_a_folder_that_is_no_sweep_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"must be the folder of a sweep, but its grid.json cannot be read: No such"
    ):
        SweptGrid.read(tmp_path)
    (tmp_path / "grid.json").write_text("{")
    with pytest.raises(RecipeError, match=r"its grid.json cannot be read: Invalid JSON"):
        SweptGrid.read(tmp_path)


def test_gpus_are_shared_out() -> None:
    assert gpu_groups(list("0123"), jobs=2, processes=2) == ["0,1", "2,3"]
    assert gpu_groups(list("01"), jobs=3, processes=1) == ["0", "1", "0"]
    assert gpu_groups(list("01"), jobs=1, processes=4) == [None]  # torchrun tells
    assert gpu_groups([], jobs=3, processes=2) == [None] * 3
