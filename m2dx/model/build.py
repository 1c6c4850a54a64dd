"""Builds the model that a recipe describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from m2dx.contract.components import DataInfo, MaskedModel, TaskShapes, Views, Waveforms
from m2dx.contract.errors import RecipeError
from m2dx.contract.host import CORE
from m2dx.model.masking import MaskDraw, RandomMasking
from m2dx.model.multitask import MultiTask, Task
from m2dx.model.shapes import ModelShapes, build_logmel, model_shapes
from m2dx.model.trial import Part, check_declaration, declared_frames, try_task
from m2dx.model.views import DataStatistics, ImageStatistics, ImageViews, ViewMaker
from m2dx.model.vit import ViTSize, encoder_of
from m2dx.recipe.schema import AudioSection

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost
    from m2dx.contract.options import ComponentSpec
    from m2dx.recipe.schema import ImageSection, ModelSection, Recipe, TaskSection


def build_masking(recipe: Recipe, host: PluginHost) -> MaskDraw:
    """What draws the mask of each clip, after one trial draw.

    RecipeError where the masking does not fit the recipe, PluginError where it fails or gives no permutation.
    """
    audio, model = recipe.audio, recipe.model
    shapes = model_shapes(recipe.input, model)
    if model.masking is None:
        return MaskDraw(RandomMasking(shapes.grid.shape, shapes.num_visible), shapes.grid.num_patches)
    masking = host.build(
        "masking",
        model.masking,
        grid=shapes.grid.shape,
        num_visible=shapes.num_visible,
        patch_seconds=None
        if recipe.image is not None
        else model.patch_size[1] * audio.hop_length / audio.sample_rate,
    )
    plugin = host.plugin_of("masking", model.masking.name)
    draw = MaskDraw(masking, shapes.grid.num_patches, None if plugin == CORE else plugin)
    draw(torch.Generator().manual_seed(0))
    return draw


def build_masked_model(
    source: AudioSection | ImageSection, model: ModelSection, host: PluginHost, *, with_tokens: bool
) -> MaskedModel:
    """The recipe's method with weights from torch's global generator; `with_tokens`: h-hat for tasks is wanted."""
    shapes = model_shapes(source, model)
    predictor = ViTSize(**model.predictor.model_dump())
    for name, size in (("model.size", shapes.size), ("model.predictor", predictor)):
        if size.embed_dim % size.num_heads or size.embed_dim % 4:
            raise RecipeError(
                f"{name}: embed_dim must be a multiple of 4 and of num_heads, but is {size.embed_dim} "
                f"with {size.num_heads} heads"
            )
    masked_model: MaskedModel = host.build(
        "method",
        model.method,
        grid=shapes.grid,
        size=shapes.size,
        predictor=predictor,
        with_tokens=with_tokens,
    )
    encoder_of(masked_model)  # that it has one
    return masked_model


def build_task(
    name: str, section: TaskSection, shapes: ModelShapes, data: DataInfo, host: PluginHost
) -> Task:
    """One task with fresh weights.

    Errors name task and component: RecipeError where mapper and encoder cannot fit, PluginError where a component
    fails or an offline encoder's declaration cannot be.
    """

    def build(kind: str, spec: ComponentSpec, **offered: object) -> Any:
        with Part.of(name, kind, spec.name, host=host).attempt("__init__"):
            return host.build(kind, spec, **offered)

    if data.sample_rate is None and host.component("offline_encoder", section.offline_encoder.name).needs_wav:
        raise RecipeError(
            f"tasks.{name}: the offline encoder {section.offline_encoder.name} needs waveforms, but the recipe's input "
            "is images; take one that does not, such as labels"
        )
    encoder = build("offline_encoder", section.offline_encoder, data=data)
    part = Part.of(name, "offline_encoder", encoder.name, host=host)
    check_declaration(part, encoder)
    frames = token_frames = None
    if data.sample_rate is not None and data.crop_samples is not None:
        rate = encoder.sample_rate or data.sample_rate
        # As torchaudio's resample rounds.
        frames = declared_frames(part, encoder, -(-data.crop_samples * rate // data.sample_rate))
    if section.target_frames == "tokens":
        if frames is None:
            raise RecipeError(
                f"tasks.{name}.target_frames must be native, since the offline encoder {encoder.name} gives one "
                "target per clip, but is tokens; leave it out"
            )
        frames = token_frames = shapes.grid.shape[1]
    task_shapes = TaskShapes(shapes.grid.shape, shapes.size.embed_dim, frames, encoder.embed_dim)
    mapper = build("online_mapper", section.online_mapper, shapes=task_shapes)
    return Task(
        encoder, mapper, build("loss", section.loss), weight=section.weight, token_frames=token_frames
    )


def check_task_names(recipe: Recipe) -> None:
    """RecipeError where a task has the name of the method, whose loss it would hide, or one that torch reserves."""
    for name in recipe.tasks:
        if name == recipe.model.method.name or hasattr(nn.ModuleDict(), name):
            raise RecipeError(f"tasks.{name}: {name!r} is a reserved name; give the task another one")


def build_views(recipe: Recipe, statistics: DataStatistics | ImageStatistics) -> ViewMaker | ImageViews:
    """What makes the views of a recipe's batches."""
    if isinstance(statistics, ImageStatistics):
        return ImageViews(statistics)
    noise_ratio = recipe.noise.ratio if recipe.noise else 0.0
    return ViewMaker(build_logmel(recipe.audio), statistics, noise_ratio=noise_ratio)


def build_model(
    recipe: Recipe, data: DataInfo, statistics: DataStatistics | ImageStatistics, host: PluginHost
) -> MultiTask:
    """The whole model with weights from the recipe's seed, its shapes checked by one small forward pass."""
    check_task_names(recipe)
    shapes = model_shapes(recipe.input, recipe.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        masked_model = build_masked_model(recipe.input, recipe.model, host, with_tokens=bool(recipe.tasks))
        tasks = {name: build_task(name, task, shapes, data, host) for name, task in recipe.tasks.items()}
    model = MultiTask(
        build_views(recipe, statistics),
        masked_model,
        tasks,
        method=recipe.model.method.name,
        num_visible=shapes.num_visible,
        weight=recipe.model.weight,
    )
    check_tasks(model, shapes, data, host=host)
    return model


def check_tasks(
    model: MultiTask, shapes: ModelShapes, data: DataInfo, *, host: PluginHost | None = None
) -> dict[str, tuple[int, ...]]:
    """Each task's target shape, from one pass to the loss on quiet noise, in eval mode.

    Raises `PluginError`, naming task and component (and plugin, with a host), where one breaks its contract.
    """
    generator = torch.Generator().manual_seed(0)
    waveforms = None
    if data.sample_rate is not None and data.crop_samples is not None:
        noise = torch.randn(2, data.crop_samples, generator=generator) * 1e-3
        waveforms = Waveforms(noise, data.sample_rate)
    views = Views(
        waveforms,
        clean_logmel=torch.zeros(2, shapes.grid.in_chans, *shapes.grid.input_size),
        labels={name: torch.eye(1, len(labels)).repeat(2, 1) for name, labels in data.label_names.items()},
    )
    tokens = torch.zeros(2, shapes.grid.num_patches, shapes.size.embed_dim)
    target_shapes: dict[str, tuple[int, ...]] = {}
    for name, task in model.tasks.items():
        assert isinstance(task, Task)
        target_shapes[name] = try_task(name, task, tokens, views, host=host)
    return target_shapes
