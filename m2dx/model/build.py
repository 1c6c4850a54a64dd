"""Builds the model that a recipe describes; its components are tried before training, and blamed by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from m2dx.contract.components import (
    Augmentation,
    Backbone,
    DataInfo,
    MaskedModel,
    MaskedModelOutput,
    OfflineEncoder,
    TaskShapes,
    Views,
    ViTSize,
    Waveforms,
)
from m2dx.contract.errors import M2dxError, PluginError, RecipeError
from m2dx.contract.host import CORE
from m2dx.contract.wording import problem_of
from m2dx.model.masking import MaskDraw, RandomMasking
from m2dx.model.multitask import MultiTask, Task
from m2dx.model.shapes import ModelShapes, build_logmel, model_shapes
from m2dx.model.views import DataStatistics, ImageViews, ViewMaker, at_rate, tensors_of
from m2dx.model.vit import encoder_of
from m2dx.recipe.schema import AudioSection

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost
    from m2dx.contract.options import ComponentSpec
    from m2dx.recipe.schema import ImageSection, ModelSection, Recipe, TaskSection


@dataclass(frozen=True)
class ComponentPlace:
    """A component in its place in a recipe, as errors name it, with its plugin."""

    place: str  # such as tasks.mine.loss
    kind: str
    name: str
    host: PluginHost

    def __str__(self) -> str:
        return f"{self.place} ({self.host.origin(self.kind, self.name)})"

    def must(self, holds: bool, text: str) -> None:
        """Raises `PluginError` with the text unless the condition holds."""
        if not holds:
            raise PluginError(f"{self}: {text}")

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Names the component in what it raises; `PluginError` where that is not an error of m2dx itself."""
        try:
            yield
        except M2dxError as error:
            error.args = (f"{self}: {error}",)  # in place, to keep its type
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(f"{self}: {what} failed: {problem_of(error)}") from error

    def must_give(
        self,
        output: object,
        shape: tuple[int, ...],
        why: str,
        *,
        what: str = "forward",
        finite: bool = True,
        learns: bool = False,
    ) -> None:
        """Raises `PluginError` unless the output is a tensor of the shape, float32 or narrower, and finite.

        `learns`: a gradient must be able to reach what it comes from.
        """
        found = _shape(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
        self.must(found == _shape(shape), f"{what} must give {_shape(shape)}, {why}, but gave {found}")
        assert isinstance(output, Tensor)
        fits = output.is_floating_point() and output.dtype != torch.float64
        self.must(fits, f"{what} must give torch.float32, but gave {output.dtype}")
        holds = not finite or bool(output.isfinite().all())
        self.must(holds, f"{what} must give finite values, but some are NaN or infinite on a trial batch")
        self.must(
            not learns or output.requires_grad,
            f"{what} must let gradients through, but gave a tensor without one",
        )


def build_masking(recipe: Recipe, host: PluginHost) -> MaskDraw:
    """What draws the masks of each clip, after a trial: one draw, and looks at noise and at silence at three steps.

    RecipeError where the masking does not fit the recipe, PluginError where it fails or gives no permutation.
    """
    audio, model = recipe.audio, recipe.model
    shapes = model_shapes(recipe.input, model)
    grid, visible = shapes.grid.shape, shapes.num_visible
    if model.masking is None:
        random = RandomMasking(grid, visible)
        return MaskDraw(random, shapes.grid.num_patches, per_clip=model.masks_per_clip)
    seconds = model.patch_size[1] * audio.hop_length / audio.sample_rate if recipe.image is None else None
    masking = host.build("masking", model.masking, grid=grid, num_visible=visible, patch_seconds=seconds)
    label = str(ComponentPlace("model.masking", "masking", model.masking.name, host))
    draw = MaskDraw(masking, shapes.grid.num_patches, label, model.masks_per_clip)
    generator = torch.Generator().manual_seed(0)
    logmel = torch.randn(2, shapes.grid.in_chans, *shapes.grid.input_size, generator=generator)
    logmel[1] = 0.0
    ids = torch.stack([draw(generator), draw(generator)]).flatten(0, -2)
    for progress in (0.0, 0.5, 0.999):
        draw.look(ids, logmel, progress=progress, seeds=torch.arange(2))
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

    offered = {
        "grid": shapes.grid,
        "size": shapes.size,
        "predictor": predictor,
        "backbone": lambda grid, size: host.build("backbone", model.backbone, grid=grid, size=size),
        "with_tokens": with_tokens,
    }
    masked_model: MaskedModel = host.build("method", model.method, **offered)
    encoder = encoder_of(masked_model)  # PluginError where it has none
    if encoder.name != model.backbone.name:
        raise RecipeError(
            f"model.backbone must be {encoder.name}, which the method {masked_model.name} builds by itself, but is "
            f"{model.backbone.name}"
        )
    if host.plugin_of("backbone", encoder.name) != CORE:
        _try_backbone(encoder, shapes, ComponentPlace("model.backbone", "backbone", encoder.name, host))
    if model.freeze_patch_embedding:
        encoder.patch_embed.requires_grad_(False)
    return masked_model


def _try_backbone(encoder: Backbone, shapes: ModelShapes, part: ComponentPlace) -> None:
    """PluginError unless the features of a trial input have the shapes that the engine offered, and can be learnt."""
    width, depth = shapes.size.embed_dim, shapes.size.depth
    with evaluating(encoder), torch.random.fork_rng(devices=[]):
        with part.attempt("embed of a trial input"):
            tokens = encoder.embed(torch.zeros(1, shapes.grid.in_chans, *shapes.grid.input_size))
        learns = any(parameter.requires_grad for parameter in encoder.patch_embed.parameters())
        part.must_give(
            tokens, (1, shapes.grid.num_patches, width), "by the recipe", what="embed", learns=learns
        )
        with part.attempt("layers of a trial input"):
            given = tokens.detach().requires_grad_() * 1.0  # which may be changed in place
            layers = list(encoder.layers(given, torch.arange(shapes.num_visible)[None]))
    part.must(
        len(layers) == depth, f"layers must give {depth} tensors, one for each block, but gave {len(layers)}"
    )
    for layer in layers:
        part.must_give(layer, (1, 1 + shapes.num_visible, width), "of each block", what="layers", learns=True)


def build_task(
    name: str, section: TaskSection, shapes: ModelShapes, data: DataInfo, host: PluginHost
) -> Task:
    """One task with fresh weights.

    Errors name task and component: RecipeError where mapper and encoder cannot fit, PluginError where a component
    fails or an offline encoder's declaration cannot be.
    """

    def build(kind: str, spec: ComponentSpec, **offered: object) -> Any:
        with ComponentPlace(f"tasks.{name}.{kind}", kind, spec.name, host).attempt("__init__"):
            return host.build(kind, spec, **offered)

    frames = token_frames = encoder = mapper = None
    if section.offline_encoder is not None:
        encoder, frames = _build_offline_encoder(name, section.offline_encoder, data, host)
        if section.target_frames == "tokens":
            if frames is None:
                raise RecipeError(
                    f"tasks.{name}.target_frames must be native, since the offline encoder {encoder.name} gives one "
                    "target per clip, but is tokens; leave it out"
                )
            frames = token_frames = shapes.grid.shape[1]
    width = 0 if encoder is None else encoder.embed_dim
    task_shapes = TaskShapes(shapes.grid.shape, shapes.size.embed_dim, frames, width)
    if section.online_mapper is not None:
        mapper = build("online_mapper", section.online_mapper, shapes=task_shapes)
    if section.regulariser is not None:
        loss = build("regulariser", section.regulariser, shapes=task_shapes)
    else:
        assert section.loss is not None  # by the rules of the section
        loss = build("loss", section.loss)
    weight, ratio = section.weight, None
    if weight == "auto":
        weight, ratio = 0.0, section.gradient_ratio or 0.5
    return Task(encoder, mapper, loss, weight=weight, gradient_ratio=ratio, token_frames=token_frames)


def _build_offline_encoder(
    task: str, spec: ComponentSpec, data: DataInfo, host: PluginHost
) -> tuple[OfflineEncoder, int | None]:
    """A task's offline encoder, and the frames that it declares for a crop, or None."""
    if data.sample_rate is None and host.component("offline_encoder", spec.name).needs_wav:
        raise RecipeError(
            f"tasks.{task}: the offline encoder {spec.name} needs waveforms, but the recipe's input is images; take "
            "one that does not, such as labels"
        )
    part = ComponentPlace(f"tasks.{task}.offline_encoder", "offline_encoder", spec.name, host)
    with part.attempt("__init__"):
        encoder: OfflineEncoder = host.build("offline_encoder", spec, data=data)
    width, rate = getattr(encoder, "embed_dim", "missing"), encoder.sample_rate
    fits = isinstance(width, int) and width > 0
    part.must(fits, f"embed_dim must be the width C of its output, set by class or __init__, but is {width}")
    fits = rate is None or (isinstance(rate, int) and rate > 0)
    part.must(fits, f"sample_rate must be a whole number of Hz, or None, but is {rate!r}")
    if data.sample_rate is None or data.crop_samples is None:
        return encoder, None
    # As `resample` rounds.
    samples = -(-data.crop_samples * (rate or data.sample_rate) // data.sample_rate)
    return encoder, declared_frames(part, encoder, samples)


def build_views(recipe: Recipe, host: PluginHost) -> ViewMaker | ImageViews:
    """What makes the views of a recipe's batches; statistics that it leaves open change nothing."""
    if recipe.image is not None:
        return ImageViews(recipe.image)
    ratio = recipe.noise.ratio if recipe.noise else 0.0
    changes = [_build_augmentation(recipe, number, host) for number in range(len(recipe.augmentations))]
    logmel, statistics = build_logmel(recipe.audio), DataStatistics.of(recipe)
    return ViewMaker(logmel, statistics, noise_ratio=ratio, augmentations=changes)


@torch.no_grad()
def _build_augmentation(recipe: Recipe, number: int, host: PluginHost) -> Augmentation:
    """One of the recipe's, after a trial on noise and on silence; PluginError where it breaks its contract."""
    spec, audio = recipe.augmentations[number], recipe.audio
    part = ComponentPlace(f"augmentations.{number}", "augmentation", spec.name, host)
    with part.attempt("__init__"):
        augmentation: Augmentation = host.build("augmentation", spec, sample_rate=audio.sample_rate)
    changes: Any = getattr(augmentation, "changes", None)
    shapes = {"waveform": (audio.crop_samples,), "logmel": (1, audio.n_mels, audio.crop_frames)}
    part.must(changes in shapes, f"changes must be 'waveform' or 'logmel', but is {changes!r}")
    given = torch.zeros(2, *shapes[changes])
    given[0].normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    before = given.clone()
    with part.attempt("forward on a trial batch"), torch.random.fork_rng(devices=[]):
        changed = augmentation(given, torch.arange(2))
    part.must_give(changed, tuple(given.shape), "the shape of its input")
    part.must(changed.dtype == given.dtype, f"forward must give {given.dtype}, but gave {changed.dtype}")
    part.must(torch.equal(given, before), "forward must leave its input as it is, since others see it too")
    return augmentation


def build_model(recipe: Recipe, data: DataInfo, host: PluginHost) -> MultiTask:
    """The whole model with weights from the recipe's seed, its shapes checked by one small forward pass.

    RecipeError, too, where a task has the name of the method, whose loss it would hide, or one that torch reserves.
    """
    for name in recipe.tasks:
        if name == recipe.model.method.name or hasattr(nn.ModuleDict(), name):
            raise RecipeError(f"tasks.{name}: {name!r} is a reserved name; give the task another one")
    shapes = model_shapes(recipe.input, recipe.model)
    masking = build_masking(recipe, host)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        regularisers = (task.regulariser for task in recipe.tasks.values())
        needs_tokens = (
            spec is None or host.component("regulariser", spec.name).needs_tokens for spec in regularisers
        )
        masked_model = build_masked_model(recipe.input, recipe.model, host, with_tokens=any(needs_tokens))
        tasks = {name: build_task(name, task, shapes, data, host) for name, task in recipe.tasks.items()}
        views = build_views(recipe, host)
    model = MultiTask(
        views,
        masked_model,
        tasks,
        method=recipe.model.method.name,
        masking=masking,
        num_visible=shapes.num_visible,
        weight=recipe.model.weight,
    )
    model.target_shapes = check_tasks(model, shapes, data, host)
    return model


def check_tasks(
    model: MultiTask, shapes: ModelShapes, data: DataInfo, host: PluginHost
) -> dict[str, tuple[int, ...]]:
    """Each task's target shape, if it has a target, from one pass to the loss on quiet noise, in eval mode.

    Raises `PluginError`, naming task, component and plugin, where one breaks its contract.
    """
    generator = torch.Generator().manual_seed(0)
    waveforms = None
    if data.sample_rate is not None and data.crop_samples is not None:
        noise = torch.randn(2, data.crop_samples, generator=generator) * 1e-3
        waveforms = Waveforms(noise, data.sample_rate)
    views = Views(
        waveforms,
        clean_logmel=torch.randn(2, shapes.grid.in_chans, *shapes.grid.input_size, generator=generator),
        labels={name: torch.eye(1, len(labels)).repeat(2, 1) for name, labels in data.label_names.items()},
    )
    tokens = torch.randn(2, shapes.grid.num_patches, shapes.size.embed_dim, generator=generator)
    tokens = tokens.requires_grad_() * 1.0  # h-hat, which may be changed in place
    visible, masked = tokens[:, : shapes.num_visible + 1], tokens[:, shapes.num_visible :]
    output = MaskedModelOutput(tokens.mean(), visible, masked, masked, tokens)
    tasks = [(name, task) for name, task in model.tasks.items() if isinstance(task, Task)]
    targets = {name: _try_task(name, task, output, views, host) for name, task in tasks}
    return {name: tuple(target.shape[1:]) for name, target in targets.items() if target is not None}


def _try_task(
    name: str, task: Task, output: MaskedModelOutput, views: Views, host: PluginHost
) -> Tensor | None:
    """The task's training signal, after a pass to its loss."""

    def part(kind: str, component: Any) -> ComponentPlace:
        return ComponentPlace(f"tasks.{name}.{kind}", kind, component.name, host)

    with evaluating(task), torch.random.fork_rng(devices=[]):
        target = None
        if task.offline_encoder is not None:
            views = at_rate(views, task.offline_encoder.sample_rate)
            encoder = part("offline_encoder", task.offline_encoder)
            before = [given.clone() for given in tensors_of(views)]
            with encoder.attempt("forward on a trial batch"), torch.no_grad():
                signal = task.offline_encoder(views)
            same = all(map(torch.equal, before, tensors_of(views)))
            encoder.must(same, "forward must leave its views as they are, since others see them, too")
            frames = None
            if views.waveforms is not None:
                frames = declared_frames(encoder, task.offline_encoder, views.clean_wav.shape[1])
            middle = () if frames is None else (frames,)
            declared = (len(views.clean_logmel), *middle, task.offline_encoder.embed_dim)
            # One that wants to know where a crop is from may have no signal of noise.
            finite = not task.offline_encoder.wants_crops
            encoder.must_give(signal, declared, "as embed_dim and num_frames declare", finite=finite)
            target = task.at_token_frames(signal)
        features: Any = output
        if task.online_mapper is not None:
            assert target is not None
            mapper = part("online_mapper", task.online_mapper)
            with mapper.attempt("forward on a trial batch"):
                features = task.online_mapper(output.tokens)
            mapper.must_give(features, tuple(target.shape), "the shape of the training signal", learns=True)
        loss = part("regulariser" if task.online_mapper is None else "loss", task.loss)
        with loss.attempt("forward on a trial batch"):
            value = task.loss(features, target)
        loss.must_give(value, (), "a scalar", learns=True)
    return target


def declared_frames(part: ComponentPlace, encoder: OfflineEncoder, num_samples: int) -> int | None:
    """Frames S that an offline encoder declares for N samples at its rate, or None; `PluginError` for others."""
    with part.attempt(f"num_frames({num_samples})"):
        frames = encoder.num_frames(num_samples)
    part.must(
        frames is None or (isinstance(frames, int) and frames > 0),
        f"num_frames must give 1 frame or more, or None, but gave {frames!r} for a crop of {num_samples} samples",
    )
    return frames


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, so that no BatchNorm learns from a trial batch; after it, each part's mode as it was."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _shape(sizes: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, sizes))})"
