"""The numbers of the recipes are those of the papers, and the small ones are the same in small."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from m2dx_respiratory.evaluator import BEST
from m2dx_tasks.papers.published import paper_protocols
from msm_mae_expected import TABLE_1
from recipe_files import PUBLISHED, RECIPES, SMALL, field, leaves
from recipes_expected import CLIPS_PER_GPU, PAPER

from m2dx.contract.components import PatchGrid
from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.recipe.schema import Recipe

NAMED = ("data.sets.", "tasks.", "evaluation.tasks.", "evaluation.evaluators.")
"""Sections that have in a recipe what they have in PAPER, and nothing else."""

SCALE = re.compile(
    r"name|output|data\.(epoch_size|stats_clips|workers)"
    r"|model\.(size|depth|(predictor|ema_decay)\.\w+)"
    r"|train\.(epochs|warmup_epochs|batch_size|accumulate|base_lr|device|threads|checkpoint_every|keep_every)"
    r"|tasks\.hubert\.offline_encoder\.weights"
    r"|evaluation\.(seeds|baselines|evaluators\.icbhi\.(epochs|batch_size|accumulate))"
)
"""Fields that small versions may change."""


@pytest.fixture(scope="module")
def load(generated: dict[str, Path], plugin_host: PluginHost) -> Iterator[Callable[[str], Recipe]]:
    """Loads a recipe by its name below recipes/, each once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, path in generated.items():
            patch.setenv(name, str(path))
        yield cache(lambda name: load_recipe(RECIPES / f"{name}.yaml", host=plugin_host))


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers(name: str, load: Callable[..., Recipe]) -> None:
    recipe = load(name)
    assert {path: field(recipe, path) for path in PAPER[name]} == PAPER[name]
    for section in NAMED:
        named = {path.removeprefix(section).split(".")[0] for path in PAPER[name] if path.startswith(section)}
        assert set(field(recipe, section.removesuffix("."))) == named


@pytest.mark.parametrize("name", PUBLISHED)
def test_respiratory_recipes_go_on_from_the_teachers_weights(
    name: str, load: Callable[..., Recipe], generated: dict[str, Path]
) -> None:
    recipe = load(name)
    go_on = name.startswith(("icbhi", "sprsound"))
    assert recipe.init_from == (generated["M2D_16X4"] if go_on else None)
    for task in recipe.tasks.values():
        if task.offline_encoder.name == "m2d_teacher":
            assert field(recipe, "tasks.teacher.offline_encoder.weights") == recipe.init_from


def test_the_settings_that_results_are_compared_by_are_those_of_the_recipes(
    load: Callable[..., Recipe],
) -> None:
    protocol = paper_protocols()["icbhi"]
    published = {**protocol.settings_for("icbhi"), **protocol.code_settings}
    options = field(load("icbhi_m2d"), "evaluation.evaluators.icbhi")
    assert {key: getattr(options, key) for key in published} == {
        key: yaml.safe_load(value) for key, value in published.items()
    }
    assert set(protocol.remarks) == {"", BEST.strip(" ()")}


@pytest.mark.parametrize("name", CLIPS_PER_GPU)
def test_the_batch_per_gpu_is_that_of_table_xv(name: str, load: Callable[..., Recipe]) -> None:
    gpus, clips = CLIPS_PER_GPU[name]
    train = load(name).train
    assert train.batch_size == gpus * clips * train.accumulate


@pytest.mark.parametrize("name", TABLE_1)
def test_the_patches_of_msm_mae_are_those_of_its_table_1(name: str, load: Callable[..., Recipe]) -> None:
    recipe, row = load(name), TABLE_1[name]
    grid = PatchGrid((recipe.audio.n_mels, recipe.audio.crop_frames), recipe.model.patch_size)
    assert (recipe.audio.crop_frames, recipe.model.patch_size) == (row.frames, row.patch_size)
    assert (grid.num_patches, *grid.shape) == (row.total, row.frequency, row.time)


@pytest.mark.parametrize("name", TABLE_1)
def test_the_learning_rate_of_msm_mae_is_the_peak(name: str, load: Callable[..., Recipe]) -> None:
    train = load(name).train
    assert train.base_lr * train.batch_size / 256 == pytest.approx(6e-4)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (
            "msm_mae_audioset",
            {
                "model.method.name",
                *(f"model.method.{option}" for option in ("target_init", "target_layers", "loss")),
                "model.method.standardise_target",
                "model.method.decoder_positions",
                "model.mask_ratio",
                "model.predictor.embed_dim",
                "model.predictor.depth",
                "model.predictor.num_heads",
            },
        ),
        ("m2d_audioset_all", {"model.method.name"}),
        ("m2d_audioset_06", {"model.mask_ratio"}),
    ],
)
def test_the_comparison_of_table_iii_differs_in_the_model_alone(
    name: str, changed: set[str], load: Callable[..., Recipe]
) -> None:
    other, m2d = (dict(leaves(recipe_to_mapping(load(n)))) for n in (name, "m2d_audioset"))
    missing = object()
    assert {key for key in other | m2d if other.get(key, missing) != m2d.get(key, missing)} == changed | {
        "name"
    }


def test_every_recipe_is_known_here_and_has_small_versions() -> None:
    assert sorted(PAPER) == PUBLISHED
    assert [f"small/{kind}/{name}" for kind in ("24gb", "cpu") for name in PUBLISHED] == SMALL


@pytest.mark.parametrize("name", SMALL)
def test_a_small_version_differs_in_scale_only(name: str, load: Callable[..., Recipe]) -> None:
    small, parent = (dict(leaves(recipe_to_mapping(load(n)))) for n in (name, Path(name).name))
    missing = object()
    changed = [key for key in small | parent if small.get(key, missing) != parent.get(key, missing)]
    assert "train.epochs" in changed
    assert [key for key in changed if not SCALE.fullmatch(key)] == []


@pytest.mark.parametrize("name", SMALL)
def test_rates_of_a_small_version_fit_its_steps_and_batch(name: str, load: Callable[..., Recipe]) -> None:
    recipe = load(name)
    train, decay = recipe.train, recipe.model.ema_decay
    steps = round(train.epochs * (recipe.data.epoch_size or 0) / train.batch_size)
    if recipe.init_from is None:  # else the target is not random at the start
        assert 0.008 < np.prod(np.linspace(decay.start, decay.end, steps)) < 0.012
    assert train.checkpoint_every < steps
    if "/cpu/" in name:
        assert train.base_lr * train.batch_size / 256 == pytest.approx(1e-3)
