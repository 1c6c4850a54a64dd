"""A recipe's model: its shapes, its seed, and what cannot fit."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from m2dx.contract.components import DataInfo, OfflineEncoder, Views, ViTSize
from m2dx.contract.errors import PluginError, RecipeError
from m2dx.contract.hookspecs import hookimpl
from m2dx.contract.host import PluginHost
from m2dx.jobs import core
from m2dx.model.build import build_model, check_tasks
from m2dx.model.m2d import M2D
from m2dx.model.mae import MSMMAE
from m2dx.model.multitask import MultiTask
from m2dx.model.shapes import model_shapes
from m2dx.model.vit import VIT_SIZES
from m2dx.recipe.schema import AudioSection, ModelSection, Recipe

LABELS = {"notes": ("bass", "flute", "organ")}
SPECTRUM = (
    "tasks.spectrum={offline_encoder: {name: log_spectrum}, online_mapper: {name: linear}, loss: {name: mse}, "
    "target_frames: tokens}"
)

MAE = (
    "model.method=msm_mae",
    "model.ema_decay={start: 0.99995, end: 0.99999}",
)  # the default: it has no target


def info(recipe: Recipe) -> DataInfo:
    return DataInfo(recipe.audio.sample_rate, recipe.audio.crop_samples, LABELS)


def build(recipe: Recipe, host: PluginHost) -> MultiTask:
    return build_model(recipe, info(recipe), host)


@pytest.mark.parametrize(
    ("patch", "ratio", "grid", "visible"),
    [((16, 16), 0.7, (5, 38), 57), ((16, 4), 0.7, (5, 152), 228), ((80, 2), 0.6, (1, 304), 121)],
)
def test_published_shapes(patch: tuple[int, int], ratio: float, grid: tuple[int, int], visible: int) -> None:
    shapes = model_shapes(AudioSection(), ModelSection(patch_size=patch, mask_ratio=ratio))
    assert shapes.grid.input_size == (80, 608) and shapes.grid.shape == grid
    assert (shapes.num_visible, shapes.num_masked) == (visible, grid[0] * grid[1] - visible)
    assert shapes.size == ViTSize(768, 12, 12)


def test_sizes_and_depth() -> None:
    assert {name: size.embed_dim for name, size in VIT_SIZES.items()} == {
        "tiny": 192,
        "small": 384,
        "base": 768,
        "large": 1024,
    }
    assert {size.embed_dim // size.num_heads for size in VIT_SIZES.values()} == {64}
    assert model_shapes(AudioSection(), ModelSection(size="large")).size.depth == 24
    assert model_shapes(AudioSection(), ModelSection(size="tiny", depth=6)).size == ViTSize(192, 6, 3)


@pytest.mark.parametrize("ratio", [0.999, 1e-9])
def test_something_must_be_visible_and_something_masked(ratio: float) -> None:
    with pytest.raises(RecipeError, match=r"mask_ratio must leave at least one patch visible and one masked"):
        model_shapes(AudioSection(), ModelSection(mask_ratio=ratio))


def test_widths_must_divide(tiny_recipe: Any, host: PluginHost) -> None:
    for predictor in ("{embed_dim: 24, num_heads: 5}", "{embed_dim: 6, num_heads: 2}"):
        with pytest.raises(
            RecipeError, match=r"model\.predictor: embed_dim must be a multiple of 4 and of num"
        ):
            build(tiny_recipe(f"model.predictor={predictor}"), host)


def test_weights_follow_from_the_seed_alone(tiny_recipe: Any, host: PluginHost) -> None:
    before = torch.get_rng_state()
    one = build(tiny_recipe(labels=True), host).state_dict()
    torch.rand(5)
    two = build(tiny_recipe(labels=True), host).state_dict()
    other = build(tiny_recipe("seed=1", labels=True), host).state_dict()
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    key = "masked_model.online.trunk.blocks.0.attn.qkv.weight"
    assert not torch.equal(one[key], other[key])
    torch.set_rng_state(before)
    build(tiny_recipe(), host)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's randomness is left alone


def test_tasks_do_not_change_m2d_s_weights(tiny_recipe: Any, host: PluginHost) -> None:
    """So that runs with and without a task start from the same point."""
    alone, with_task = build(tiny_recipe(), host), build(tiny_recipe(labels=True), host)
    for name, value in alone.masked_model.state_dict().items():
        assert torch.equal(value, with_task.masked_model.state_dict()[name])


def test_options_reach_the_model(tiny_recipe: Any, host: PluginHost) -> None:
    m2d = build(tiny_recipe(), host).masked_model
    assert isinstance(m2d, M2D) and m2d.standardised_over == -1 and not m2d.target_sees_all
    m2d = build(
        tiny_recipe("model.method={name: m2d_all_patches, standardise_target: false}"), host
    ).masked_model
    assert isinstance(m2d, M2D) and m2d.standardised_over is None and m2d.target_sees_all
    mae = build(tiny_recipe(*MAE), host).masked_model
    assert isinstance(mae, MSMMAE) and not mae.standardise_target and mae.to_latent is None
    mae = build(tiny_recipe(*MAE, "model.method.standardise_target=true", labels=True), host).masked_model
    assert isinstance(mae, MSMMAE) and mae.standardise_target and mae.to_latent is not None


def test_task_shapes(tiny_recipe: Any, host: PluginHost) -> None:
    recipe = tiny_recipe(SPECTRUM, labels=True)
    model = build(recipe, host)
    shapes = check_tasks(model, model_shapes(recipe.audio, recipe.model), info(recipe), host)
    assert shapes == {"labels": (3,), "spectrum": (2, 257)}  # 0.32 s: 2 patches in time


def test_tasks_that_cannot_fit_are_refused_before_training(tiny_recipe: Any, host: PluginHost) -> None:
    native = SPECTRUM.replace("target_frames: tokens", "target_frames: native")
    with pytest.raises(RecipeError, match=r"tasks\.spectrum\.online_mapper .*\(B, 2, 257\).*\(B, 16, 257\)"):
        build(tiny_recipe(native), host)
    pooled = SPECTRUM.replace("name: linear", "name: pool_linear")
    with pytest.raises(RecipeError, match=r"tasks\.spectrum\.online_mapper .*use linear"):
        build(tiny_recipe(pooled), host)


def test_a_crop_may_be_one_patch() -> None:
    assert model_shapes(AudioSection(crop_seconds=0.16), ModelSection()).grid.shape == (5, 1)


def test_one_target_per_clip_has_no_frames_to_bring_to_tokens(tiny_recipe: Any, host: PluginHost) -> None:
    recipe = tiny_recipe(
        "tasks={notes: {offline_encoder: {name: labels}, online_mapper: {name: pool_linear}, "
        "loss: {name: bce}, target_frames: tokens}}"
    )
    with pytest.raises(RecipeError, match=r"tasks\.notes\.target_frames must be native, .* labels gives one"):
        build(recipe, host)


@pytest.mark.parametrize("name", ["m2d", "type", "pop", "values", "training"])
def test_reserved_task_names(tiny_recipe: Any, host: PluginHost, name: str) -> None:
    task = SPECTRUM.replace("tasks.spectrum", f"tasks.{name}")
    with pytest.raises(RecipeError, match=f"tasks.{name}: '{name}' is a reserved name"):
        build(tiny_recipe(task), host)


class OneValue(OfflineEncoder):
    name = "one_value"
    embed_dim = 1

    def forward(self, views: Views) -> torch.Tensor:
        return views.clean_logmel.mean(dim=(2, 3))  # (B, 1)


@pytest.mark.parametrize(
    ("encoder", "error", "text"),
    [
        ("labels", RecipeError, "data set 'notes' must have two classes or more to learn, but has one: bass"),
        ("one_value", PluginError, r"tasks\.note\.loss \('norm_mse'\): forward must give finite values"),
    ],
)
def test_a_task_of_one_value_is_refused_before_training(
    encoder: str, error: type[Exception], text: str, tiny_recipe: Any
) -> None:
    host = PluginHost({"m2dx": core, "one": SimpleNamespace(offline_encoders=hookimpl(lambda: [OneValue]))})
    recipe = tiny_recipe(
        f"tasks.note={{offline_encoder: {encoder}, online_mapper: pool_linear, loss: norm_mse}}",
        with_host=host,
    )
    data = DataInfo(recipe.audio.sample_rate, recipe.audio.crop_samples, {"notes": ("bass",)})
    with pytest.raises(error, match=text):
        build_model(recipe, data, host)
