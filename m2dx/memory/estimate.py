"""The memory of a training step, counted from the model itself without making it: ViT-Large costs nothing here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from m2dx.contract.host import PluginHost
from m2dx.memory.live import LiveMemory, as_fake, storage_bytes
from m2dx.memory.made_up import Labels, MadeUpCrops, batch_bytes
from m2dx.model.build import build_masked_model, build_task, build_views, check_task_names
from m2dx.model.multitask import MultiTask
from m2dx.model.precision import autocast
from m2dx.model.shapes import model_shapes
from m2dx.recipe.schema import Recipe

_CLIPS = (2, 3)  # of the two passes; 1 may take other kernels, since a dimension of 1 needs no copies


@dataclass(frozen=True)
class Moment:
    """What is in use after one operation of a pass, bytes, besides weights and batch."""

    of_each_clip: int
    fixed: int
    gradients: int  # among the fixed


@dataclass(frozen=True)
class Estimate:
    """The memory of one training process, bytes."""

    weights: int  # trained
    target: int  # the moving average
    frozen: int  # offline encoders, and buffers
    gradients: int
    state: int  # the optimizer's
    batch: int  # one clip: samples, noise, labels, mask
    moments: tuple[Moment, ...]
    between: int = 0  # what several processes add (gradients on their way), or save each other (shards)
    left_out: str | None = None  # what could not be counted

    @property
    def fixed(self) -> int:
        """What is there whatever the batch, between two steps."""
        return self.weights + self.target + self.frozen + self.state + self.between

    @property
    def activations(self) -> int:
        """What each clip adds at the peak of a pass: what backward needs, and what is being computed."""
        peak = max(self.moments, key=lambda moment: 1024 * moment.of_each_clip + moment.fixed)
        return peak.of_each_clip

    def peak(self, clips: int, *, accumulate: bool) -> int:
        """The most in use during steps of `clips` a pass; `accumulate`: gradients of earlier passes are there."""
        kept = self.gradients if accumulate else 0
        in_passes = max(
            clips * moment.of_each_clip + moment.fixed + kept - (moment.gradients if accumulate else 0)
            for moment in self.moments
        )
        return self.fixed + clips * self.batch + max(in_passes, self.gradients)


def estimate_memory(recipe: Recipe, labels: Labels, host: PluginHost, *, processes: int = 1) -> Estimate:
    """The memory of a training process, from its sizes and two passes of fake tensors, which have no data.

    A task whose components cannot take such tensors counts by its parameters alone, and is named in `left_out`. What
    torch.compile saves is not known here.
    """
    made_up = made_up_crops(recipe, labels)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = fake_model(recipe, made_up, host, mode)
    trained = [p for p in model.parameters() if p.requires_grad]
    target = [p for p in model.masked_model.parameters() if not p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad] + list(model.buffers())
    weights, of_target = storage_bytes(trained), storage_bytes(target)
    moments, left_out = _moments(model, made_up, recipe, mode)
    return Estimate(
        weights=weights,
        target=of_target,
        frozen=storage_bytes(frozen) - of_target,
        gradients=weights,
        state=2 * weights,
        batch=batch_bytes(made_up.batch(1)),
        moments=moments,
        between=_between(recipe, weights, of_target, processes),
        left_out=left_out,
    )


def _between(recipe: Recipe, weights: int, target: int, processes: int) -> int:
    if processes == 1:
        return 0
    if recipe.train.sharding == "none":
        return weights  # DDP's copy of the gradients
    shared = 4 * weights + target  # weights, gradients and two moments
    return shared // processes - shared


def made_up_crops(recipe: Recipe, labels: Labels) -> MadeUpCrops:
    """Made-up clips for a recipe. RecipeError where its sizes cannot be."""
    return MadeUpCrops(recipe, labels, model_shapes(recipe.input, recipe.model).grid.num_patches)


def fake_model(recipe: Recipe, made_up: MadeUpCrops, host: PluginHost, mode: FakeTensorMode) -> MultiTask:
    """The recipe's model of tensors without values: shapes alone, which take no memory."""
    check_task_names(recipe)
    shapes = model_shapes(recipe.input, recipe.model)
    # Real ones, which may read files; they are small beside the network.
    tasks = {
        name: build_task(name, section, shapes, made_up.data, host) for name, section in recipe.tasks.items()
    }
    views = build_views(recipe, made_up.statistics)
    for part in (views, *tasks.values()):
        as_fake(part, mode)
    with mode:
        masked_model = build_masked_model(recipe.input, recipe.model, host, with_tokens=bool(tasks))
    model = MultiTask(
        views,
        masked_model,
        tasks,
        method=recipe.model.method.name,
        num_visible=shapes.num_visible,
        weight=recipe.model.weight,
    )
    return model.train()


def _moments(
    model: MultiTask, made_up: MadeUpCrops, recipe: Recipe, mode: FakeTensorMode
) -> tuple[tuple[Moment, ...], str | None]:
    left_out = None
    try:
        lines = [_timeline(model, made_up, recipe, mode, clips) for clips in _CLIPS]
    except Exception as error:  # of any kind: a plugin's code meets tensors without data
        if not recipe.tasks:
            raise
        left_out = f"what the passes of tasks need ({type(error).__name__}); the measured memory has it"
        alone = _without_tasks(model, recipe)
        lines = [_timeline(alone, made_up, recipe, mode, clips) for clips in _CLIPS]
    fewer, more = lines
    if len(fewer) != len(more):  # never seen; then the peaks alone count
        fewer, more = [max(fewer)], [max(more)]
    step = _CLIPS[1] - _CLIPS[0]
    moments = {
        Moment((after - before) // step, before - _CLIPS[0] * (after - before) // step, gradients)
        for (before, gradients), (after, _) in zip(fewer, more, strict=True)
    }
    return tuple(moments), left_out


def _without_tasks(model: MultiTask, recipe: Recipe) -> MultiTask:
    alone: Mapping[str, Any] = {}
    return MultiTask(
        model.views, model.masked_model, alone, method=model.method, num_visible=model.num_visible
    ).train()


def _timeline(
    model: MultiTask, made_up: MadeUpCrops, recipe: Recipe, mode: FakeTensorMode, clips: int
) -> list[tuple[int, int]]:
    """Bytes in use after each operation of one pass, and those of gradients among them."""
    with mode:
        real = made_up.batch(clips)
        batch = replace(real)
        known = [*model.parameters(), *model.buffers(), batch.inputs, batch.ids_shuffle, batch.clip_ids]
        known += [t for t in (batch.noise_wav, *batch.labels.values()) if t is not None]
        live = LiveMemory(known)
        hooks = [
            parameter.register_post_accumulate_grad_hook(live.note_gradient)
            for parameter in model.parameters()
            if parameter.requires_grad
        ]
        try:
            with live:
                with autocast(recipe.train.precision, torch.device("cpu")):
                    total = model(batch).total
                total.backward()
        finally:
            for hook in hooks:
                hook.remove()
            model.zero_grad(set_to_none=True)
    return live.timeline
