"""Builds the model that a recipe describes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from m2dx.audio.logmel import LogMel
from m2dx.components import DataInfo, TaskShapes, Views
from m2dx.errors import M2dxError, PluginError, RecipeError
from m2dx.model.m2d import M2D
from m2dx.model.mae import MSMMAE
from m2dx.model.masking import num_visible_patches
from m2dx.model.multitask import MultiTask, Task
from m2dx.model.patches import PatchGrid
from m2dx.model.views import DataStatistics, ViewMaker
from m2dx.model.vit import VIT_SIZES, ViTSize

if TYPE_CHECKING:
    from m2dx.plugins import PluginHost
    from m2dx.recipe.schema import AudioSection, ModelSection, Recipe, TaskSection


@dataclass(frozen=True)
class ModelShapes:
    """The sizes that follow from a recipe."""

    grid: PatchGrid
    size: ViTSize
    num_visible: int  # V

    @property
    def num_masked(self) -> int:
        """P - V."""
        return self.grid.num_patches - self.num_visible


def model_shapes(audio: AudioSection, model: ModelSection) -> ModelShapes:
    """Grid, width and mask counts of a recipe; RecipeError where nothing would be visible or masked."""
    grid = PatchGrid((audio.n_mels, audio.crop_frames), model.patch_size)
    size = VIT_SIZES[model.size]
    if model.depth is not None:
        size = replace(size, depth=model.depth)
    visible = num_visible_patches(grid.num_patches, model.mask_ratio)
    if not 0 < visible < grid.num_patches:
        raise RecipeError(
            f"model.mask_ratio must leave at least one patch visible and one masked, but {model.mask_ratio} of "
            f"{grid.num_patches} patches leaves {visible} visible"
        )
    return ModelShapes(grid, size, visible)


def build_logmel(audio: AudioSection) -> LogMel:
    """The log-mel transform of a recipe."""
    return LogMel(**audio.model_dump(exclude={"crop_seconds"}))


def build_masked_model(audio: AudioSection, model: ModelSection, *, with_tokens: bool) -> M2D | MSMMAE:
    """M2D or MSM-MAE with fresh weights from torch's global generator; `with_tokens`: h-hat for tasks is wanted."""
    shapes = model_shapes(audio, model)
    predictor = ViTSize(**model.predictor.model_dump())
    for name, size in (("model.size", shapes.size), ("model.predictor", predictor)):
        if size.embed_dim % size.num_heads or size.embed_dim % 4:
            raise RecipeError(
                f"{name}: embed_dim must be a multiple of 4 and of num_heads, but is {size.embed_dim} "
                f"with {size.num_heads} heads"
            )
    if model.method == "msm_mae":
        return MSMMAE(
            shapes.grid,
            shapes.size,
            predictor,
            standardise_target=bool(model.standardise_target),
            with_tokens=with_tokens,
        )
    return M2D(
        shapes.grid,
        shapes.size,
        predictor,
        target_input=model.target_input,
        target_init=model.target_init,
        loss=model.loss,
        standardise_target=model.standardise_target is not False,
    )


def build_task(
    name: str, section: TaskSection, shapes: ModelShapes, data: DataInfo, host: PluginHost
) -> Task:
    """One task with fresh weights; RecipeError, naming the task, where mapper and encoder cannot fit."""
    encoder = host.build("offline_encoder", section.offline_encoder, data=data)
    rate = encoder.sample_rate or data.sample_rate
    num_samples = -(-data.crop_samples * rate // data.sample_rate)  # as torchaudio's resample rounds
    frames = encoder.num_frames(num_samples)
    token_frames = None
    if section.target_frames == "tokens" and frames is not None:
        frames = token_frames = shapes.grid.shape[1]
    task_shapes = TaskShapes(shapes.grid.shape, shapes.size.embed_dim, frames, encoder.embed_dim)
    try:
        mapper = host.build("online_mapper", section.online_mapper, shapes=task_shapes)
    except RecipeError as error:
        raise RecipeError(f"tasks.{name}: {error}") from error
    loss = host.build("loss", section.loss)
    return Task(encoder, mapper, loss, weight=section.weight, token_frames=token_frames)


def check_task_names(recipe: Recipe) -> None:
    """RecipeError where a task has the name of the method, whose loss it would hide, or one that torch reserves."""
    for name in recipe.tasks:
        if name == recipe.model.method or hasattr(nn.ModuleDict(), name):
            raise RecipeError(f"tasks.{name}: {name!r} is a reserved name; give the task another one")


def build_model(recipe: Recipe, data: DataInfo, statistics: DataStatistics, host: PluginHost) -> MultiTask:
    """The whole model with weights from the recipe's seed, its shapes checked by one small forward pass."""
    check_task_names(recipe)
    shapes = model_shapes(recipe.audio, recipe.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        masked_model = build_masked_model(recipe.audio, recipe.model, with_tokens=bool(recipe.tasks))
        tasks = {name: build_task(name, task, shapes, data, host) for name, task in recipe.tasks.items()}
    views = ViewMaker(
        build_logmel(recipe.audio),
        statistics,
        noise_ratio=recipe.noise.ratio if recipe.noise else 0.0,
    )
    model = MultiTask(
        views,
        masked_model,
        tasks,
        method=recipe.model.method,
        num_visible=shapes.num_visible,
        weight=recipe.model.weight,
    )
    check_tasks(model, shapes, data)
    return model


@torch.no_grad()
def check_tasks(model: MultiTask, shapes: ModelShapes, data: DataInfo) -> dict[str, tuple[int, ...]]:
    """Each task's target shape, from one forward pass on quiet noise; RecipeError where shapes do not fit."""
    generator = torch.Generator().manual_seed(0)
    views = Views(
        clean_wav=torch.randn(2, data.crop_samples, generator=generator) * 1e-3,
        sample_rate=data.sample_rate,
        clean_logmel=torch.zeros(2, 1, *shapes.grid.input_size),
        labels={name: torch.zeros(2, len(labels)) for name, labels in data.label_names.items()},
    )
    tokens = torch.zeros(2, shapes.grid.num_patches, shapes.size.embed_dim)
    target_shapes: dict[str, tuple[int, ...]] = {}
    for name, task in model.tasks.items():
        assert isinstance(task, Task)
        try:
            target_shapes[name] = task.check_shapes(name, tokens, views)
        except M2dxError:
            raise
        except Exception as error:
            parts = f"{task.offline_encoder.name}, {task.online_mapper.name}"
            raise PluginError(f"tasks.{name}: {parts} failed on a trial batch: {error!r}") from error
    return target_shapes
