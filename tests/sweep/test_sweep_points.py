"""Every point is checked before anything is written; what is on the disk must be of the same recipes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe, recipe_to_mapping, recipe_to_yaml
from m2dx.sweep.beginning import check_beginning, reopen, write_beginning
from m2dx.sweep.folder import State, SweepFolder
from m2dx.sweep.points import Plan

Planner = Callable[..., Plan]


def begin(plan: Plan) -> SweepFolder:
    write_beginning(plan, Path("tiny.yaml"))
    return SweepFolder(plan.folder)


def pretend_run(plan: Plan, number: int, **changes: Any) -> Path:
    """What a run of a point would have left: its recipe, with the measured statistics."""
    recipe = plan.points[number].recipe
    run = plan.folder / plan.points[number].name
    run.mkdir(parents=True)
    began = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"mean": -7.5, "std": 3.5}), **changes}
    )
    (run / "recipe.yaml").write_text(recipe_to_yaml(began), encoding="utf-8")
    return run


def test_each_point_is_the_recipe_with_its_values(plan: Planner, tmp_path: Path) -> None:
    planned = plan("model.mask_ratio=0.6,0.8", "train.epochs=1", "seed=0,1")
    assert planned.folder == tmp_path / "runs" / "tiny-mask_ratio"
    found = [
        (p.recipe.model.mask_ratio, p.recipe.seed, p.recipe.train.epochs, p.recipe.name)
        for p in planned.points
    ]
    assert found == [
        (ratio, seed, 1.0, f"mask_ratio-0p{round(10 * ratio)}-seed-{seed}")
        for ratio in (0.6, 0.8)
        for seed in (0, 1)
    ]
    assert {point.recipe.output for point in planned.points} == {planned.folder}
    assert plan("seed=0,1").folder.name == "tiny-seed"
    assert plan("seed=0,1", "name=mine").folder.name == "mine"


def test_keep_is_the_recipes_own_value(plan: Planner) -> None:
    planned = plan(
        "noise={ratio: 0.5, dataset: {name: csv, path: x.csv}}", "noise.ratio=keep,0.2", "name=eta"
    )
    assert [p.recipe.noise.ratio for p in planned.points] == [0.5, 0.2]  # type: ignore[union-attr]
    off = plan("model.predictor=keep,null")
    assert [p.recipe.model.predictor.embed_dim for p in off.points] == [
        24,
        512,
    ]  # null: the section's defaults


def test_all_points_that_are_wrong_are_told_at_once_and_nothing_is_written(
    plan: Planner, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        plan("model.mask_ratio=0.6,1.5", "model.patch_size=[16,16],[15,16]", "train.epoch=keep,2")
    text = str(error.value)
    assert text.startswith("7 of 8 points cannot be run, so nothing was started")
    assert "mask_ratio: must be less than 1, but is 1.5" in text
    assert "must be a multiple of the patch's 15 mels" in text
    assert "unknown key" in text and "did you mean 'epochs'?" in text
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_recipe_is_told_once(plan: Planner, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(path.read_text() + "sed: 1\n")
    with pytest.raises(RecipeError) as error:
        plan("seed=0,1,2")
    assert str(error.value).count("unknown key") == 1 and "all points:" in str(error.value)


def test_points_that_are_the_same_are_refused(plan: Planner) -> None:
    with pytest.raises(
        RecipeError, match="0p6:\n  points must differ, but this is the same recipe as mask_ratio-keep"
    ):
        plan("model.mask_ratio=keep,0.6")
    with pytest.raises(RecipeError, match="two points are called mask_ratio-0p8"):
        plan("model.mask_ratio=0.8,0.80")


def test_a_batch_that_does_not_divide_by_the_processes_is_refused(plan: Planner) -> None:
    with pytest.raises(RecipeError, match=r"batch_size-4:\n.*accumulate x processes \(1 x 3\), but is 4"):
        plan("train.batch_size=4,6", processes=3)


def test_lists_of_the_evaluation_are_checked(plan: Planner, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"all points:\n.*none\.csv"):
        plan(
            f"evaluation.tasks={{a: {{dataset: {{name: csv, path: {tmp_path / 'none.csv'}}}}}}}",
            "evaluation.evaluators={knn: {name: knn}}",
            "seed=0,1",
        )


def test_a_sweep_is_begun_once_and_reopened_as_it_was(
    plan: Planner, host: PluginHost, tmp_path: Path
) -> None:
    planned = plan("model.mask_ratio=0.6,0.8", "seed=0,1")
    check_beginning(planned, resume=False, host=host)
    assert not planned.folder.exists()
    folder = begin(planned)
    (tmp_path / "tiny.yaml").unlink()  # the sweep has recipes of its own
    sweep = reopen(planned.folder, host=host)
    recipes = [
        [recipe_to_mapping(point.recipe) for point in points] for points in (sweep.points, planned.points)
    ]
    assert recipes[0] == recipes[1]
    assert [point.values for point in sweep.points] == [point.values for point in planned.points]
    assert folder.read_manifest().keys == (("model.mask_ratio",), ("seed",))
    with pytest.raises(
        RecipeError, match=r"holds a sweep already \(0 of 4 points finished, 4 not started\): go on"
    ):
        check_beginning(planned, resume=False, host=host)


def test_without_a_sweep_there_is_nothing_to_resume(plan: Planner, host: PluginHost, tmp_path: Path) -> None:
    planned = plan("seed=0,1")
    with pytest.raises(RecipeError, match="has no sweep to go on with; leave out --resume"):
        check_beginning(planned, resume=True, host=host)
    planned.folder.mkdir(parents=True)
    (planned.folder / "recipe.yaml").touch()
    with pytest.raises(RecipeError, match="holds a run; give the sweep another name"):
        check_beginning(planned, resume=False, host=host)
    with pytest.raises(
        RecipeError, match=r"must be the folder of a sweep, but its sweep.json cannot be read: No such"
    ):
        reopen(planned.folder, host=host)


def test_a_sweep_may_get_more_points_but_no_fewer_and_no_other_keys(plan: Planner, host: PluginHost) -> None:
    begin(plan("model.mask_ratio=0.6,0.8", "name=mine"))
    more = plan("model.mask_ratio=0.5,0.6,0.8", "name=mine")
    assert len(check_beginning(more, resume=True, host=host).points) == 3
    with pytest.raises(RecipeError, match="must keep those it has; this grid lacks mask_ratio-0p8; add"):
        check_beginning(plan("model.mask_ratio=0.5,0.6", "name=mine"), resume=True, host=host)
    with pytest.raises(
        RecipeError, match=r"begun with \(model.mask_ratio\), .* is over model.mask_ratio  seed"
    ):
        check_beginning(plan("model.mask_ratio=0.6,0.8", "seed=0,1", "name=mine"), resume=True, host=host)


def test_a_run_of_another_recipe_is_refused_with_what_differs(plan: Planner, host: PluginHost) -> None:
    planned = plan("model.mask_ratio=0.6,0.8", "data.mean=null", "data.std=null")
    begin(planned)
    pretend_run(planned, 0)
    check_beginning(planned, resume=True, host=host)  # the measured statistics are the run's own
    train = planned.points[1].recipe.train
    changed = train.model_copy(update={"epochs": 7.0, "threads": 2})  # threads change no result
    pretend_run(planned, 1, train=changed)
    for again in (
        lambda: check_beginning(planned, resume=True, host=host),
        lambda: reopen(planned.folder, host=host),
    ):
        with pytest.raises(RecipeError) as error:
            again()
        assert re.search(r"^  mask_ratio-0p8: train.epochs \(7.0 -> 2.0\)$", str(error.value), re.MULTILINE)
        assert "threads" not in str(error.value) and "mask_ratio-0p6" not in str(error.value)


def test_a_folder_that_was_moved_or_broken_is_told(plan: Planner, host: PluginHost, tmp_path: Path) -> None:
    planned = plan("seed=0,1")
    folder = begin(planned)
    moved = tmp_path / "moved"
    planned.folder.rename(moved)
    with pytest.raises(RecipeError, match="must go on in the folder that it was begun in"):
        reopen(moved, host=host)
    moved.rename(planned.folder)
    folder.recipe("seed-1").write_text("data: 1\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"recipes/seed-1.yaml:1: data"):
        reopen(planned.folder, host=host)
    manifest = json.loads(folder.manifest_file.read_text())
    folder.manifest_file.write_text(json.dumps({**manifest, "format": "other"}))
    with pytest.raises(RecipeError, match="must have the format m2dx-sweep, but has 'other'"):
        folder.read_manifest()
    folder.manifest_file.write_text("{")
    with pytest.raises(RecipeError, match=r"sweep.json must be the manifest of a sweep, but: "):
        folder.read_manifest()


def test_the_recipe_of_a_point_is_what_train_takes(plan: Planner, host: PluginHost) -> None:
    planned = plan("model.mask_ratio=0.6,0.8")
    folder = begin(planned)
    for point in planned.points:
        again = load_recipe(folder.recipe(point.name), host=host)
        assert recipe_to_mapping(again) == recipe_to_mapping(point.recipe)
        assert folder.state(point.name) is State.NEW
