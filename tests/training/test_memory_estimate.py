"""What a training step takes, counted without making the model, beside what it is made of and what is measured."""

from typing import Any

import pytest
import torch

from m2dx.memory.estimate import Estimate, Moment, estimate_memory, made_up_crops
from m2dx.memory.limits import resident_bytes
from m2dx.memory.live import LiveMemory, storage_bytes
from m2dx.memory.setting import Setting
from m2dx.model.build import build_model

LABELS = {"notes": ("a", "b", "c")}
MIB = 2**20


def test_parts_are_those_of_the_model(tiny_recipe: Any, host: Any) -> None:
    recipe = tiny_recipe(labels=True, noise=True)
    estimate = estimate_memory(recipe, LABELS, host)
    crops = made_up_crops(recipe, LABELS)
    model = build_model(recipe, crops.data, crops.statistics, host)
    trained = storage_bytes(p for p in model.parameters() if p.requires_grad)
    assert (estimate.weights, estimate.gradients, estimate.state) == (trained, trained, 2 * trained)
    assert estimate.target == storage_bytes(model.masked_model.target.parameters())
    samples, patches = recipe.audio.crop_samples, 10
    assert estimate.batch == 4 * 2 * samples + 4 * 3 + 8 * patches + 8
    assert estimate.left_out is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_each_clip_adds_is_what_a_real_pass_keeps(tiny_recipe: Any, host: Any, precision: str) -> None:
    """The same count over real tensors, of 5 clips: neither the number nor the fakes of the estimate."""
    recipe = tiny_recipe(f"train.precision={precision}", "model.depth=2")
    estimate = estimate_memory(recipe, {}, host)
    crops = made_up_crops(recipe, {})
    model = build_model(recipe, crops.data, crops.statistics, host).train()
    batch = crops.batch(5)
    from m2dx.model.precision import autocast

    live = LiveMemory(
        [*model.parameters(), *model.buffers(), batch.inputs, batch.ids_shuffle, batch.clip_ids]
    )
    with live:
        with autocast(precision, torch.device("cpu")):
            total = model(batch).total
        total.backward()
    real = max(used for used, _ in live.timeline)
    expected = estimate.peak(5, accumulate=False) - estimate.fixed - 5 * estimate.batch
    assert expected == pytest.approx(real, rel=0.03)


def test_a_large_model_is_counted_without_being_made(tiny_recipe: Any, host: Any) -> None:
    recipe = tiny_recipe("model.size=large", "model.depth=4")
    before = resident_bytes()
    estimate = estimate_memory(recipe, {}, host)
    assert estimate.weights > 190 * MIB
    assert resident_bytes() - before < 100 * MIB


def test_gradients_of_earlier_passes_are_there_while_activations_peak() -> None:
    moments = (Moment(100, 0, 0), Moment(10, 50, 50))
    estimate = Estimate(50, 20, 5, gradients=50, state=100, batch=3, moments=moments)
    assert estimate.fixed == 175
    assert estimate.peak(4, accumulate=False) == 175 + 12 + 400
    assert estimate.peak(4, accumulate=True) == 175 + 12 + 50 + 400
    assert Estimate(50, 0, 0, 50, 100, 0, (Moment(1, 0, 0),)).peak(1, accumulate=False) == 150 + 50


@pytest.mark.parametrize(("sharding", "between"), [("none", 1.0), ("fsdp", None)])
def test_several_processes_add_gradients_or_share_all(
    tiny_recipe: Any, host: Any, sharding: str, between: float | None
) -> None:
    recipe = tiny_recipe(f"train.sharding={sharding}")
    estimate = estimate_memory(recipe, {}, host, processes=4)
    shared = 4 * estimate.weights + estimate.target
    assert estimate.between == (estimate.weights if between else shared // 4 - shared)


def test_what_tasks_do_that_cannot_be_counted_is_told(tiny_recipe: Any, host: Any, monkeypatch: Any) -> None:
    from m2dx.model.losses import CrossEntropy

    def values(self: Any, prediction: Any, target: Any) -> Any:
        return prediction.sum() * float(prediction.mean())  # reads a value, which a fake tensor has not

    recipe = tiny_recipe(labels=True)
    monkeypatch.setattr(CrossEntropy, "forward", values)
    estimate = estimate_memory(recipe, LABELS, host)
    assert estimate.left_out is not None and "tasks" in estimate.left_out
    assert estimate.activations > 0


def test_images_are_counted_too(tiny_recipe: Any, host: Any) -> None:
    data = "data={sets: {images: {dataset: {name: image_folder, path: nowhere}}}, mean: null, std: null}"
    recipe = tiny_recipe(data, "image={size: [64, 64]}", "audio=null")
    assert estimate_memory(recipe, {}, host).batch == 3 * 64 * 64 + 8 * 16 + 8


@pytest.mark.slow
def test_the_estimate_is_near_what_is_measured(tiny_recipe: Any, host: Any) -> None:
    """Of a model that is large beside the libraries, in a process of its own."""
    recipe = tiny_recipe("model.size=small", "model.depth=8", "audio.crop_seconds=6.08", "train.batch_size=8")
    setting = Setting.of(recipe, {}, host, device=torch.device("cpu"), processes=1, on_this_machine=1)
    with setting.trials() as trials:
        for clips in (1, 8):
            found = setting.measure(clips, trials)
            assert found.problem is None
            estimated = found.program + setting.estimated(clips) - setting.program
            assert estimated == pytest.approx(found.used, rel=0.2)
