"""Components that break their contract: found before training, with task, kind, component and plugin in the error."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import m2dx
from m2dx.contract.components import (
    Augmentation,
    Backbone,
    DataInfo,
    Loss,
    MaskedModelOutput,
    OfflineEncoder,
    OnlineMapper,
    Regulariser,
    TaskShapes,
    Views,
)
from m2dx.contract.errors import PluginError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.model.build import build_model, check_tasks
from m2dx.model.multitask import MultiTask, Task
from m2dx.model.shapes import model_shapes
from m2dx.model.vit import Encoder
from m2dx.recipe.schema import Recipe

WIDTH = 3
TASK = "tasks.mine={offline_encoder: {name: signal}, online_mapper: {name: mapper}, loss: {name: square}}"
ENCODER = r"tasks\.mine\.offline_encoder \('signal' of plugin 'acme'\): "
MAPPER = r"tasks\.mine\.online_mapper \('mapper' of plugin 'acme'\): "
LOSS = r"tasks\.mine\.loss \('square' of plugin 'acme'\): "
GRADIENT = "forward must let gradients through"
FINITE = "forward must give finite values, but some are NaN or infinite"
FLOAT32 = r"forward must give torch\.float32, but gave torch\.float64"
VIEWS = "forward must leave its views as they are"
Make = Callable[..., Recipe]


class Signal(OfflineEncoder):
    """16 frames of zeros for the 0.32 s of the tiny recipe."""

    name = "signal"
    embed_dim = WIDTH
    sample_rate, frame_rate = 16_000, 50.0

    def forward(self, views: Views) -> Tensor:
        return torch.zeros(len(views.clean_wav), 16, WIDTH)


class Unsized(OfflineEncoder):
    """Sets no embed_dim."""

    name = "signal"

    def forward(self, views: Views) -> Tensor:
        return torch.zeros(len(views.clean_wav), WIDTH)


class Spread(Regulariser):
    """Mean square of the features of visible patches."""

    name = "spread"
    needs_tokens = False

    def forward(self, output: MaskedModelOutput, target: Tensor | None) -> Tensor:
        return output.latent.square().mean()


class Half(Augmentation):
    """Half of what is there."""

    name = "half"
    changes = "waveform"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(0.5))

    def forward(self, x: Tensor, seeds: Tensor) -> Tensor:
        return x * self.factor


class Mapper(OnlineMapper):
    """One frame, repeated, from all tokens; has BatchNorm and dropout."""

    name = "mapper"

    def __init__(self, shapes: TaskShapes) -> None:
        super().__init__(shapes)
        self.layers = nn.Sequential(
            nn.Linear(shapes.embed_dim, shapes.target_dim), nn.BatchNorm1d(shapes.target_dim), nn.Dropout()
        )

    def forward(self, tokens: Tensor) -> Tensor:
        frame: Tensor = self.layers(tokens.mean(dim=1))  # (B, P, D) -> (B, C)
        assert self.shapes.target_frames is not None
        return frame.unsqueeze(1).expand(-1, self.shapes.target_frames, -1)  # (B, C) -> (B, S, C)


class Square(Loss):
    """Mean squared error."""

    name = "square"

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean()


def changed(component: type, **attributes: Any) -> Any:
    """The component with other attributes."""
    return type("Changed", (component,), attributes)


def fail(self: Any, *given: Any) -> Tensor:
    raise ZeroDivisionError("of the plugin")


def leave(self: Any, *given: Any) -> Tensor:
    raise SystemExit("of the plugin")


def break_off(self: Any) -> None:
    raise ZeroDivisionError("of the plugin")


def refuse(self: Any) -> None:
    raise RecipeError("weights must be given")


def spoil(view: Tensor) -> Tensor:
    view.mul_(0.0)
    return torch.zeros(2, 16, WIDTH)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Callable[..., Tensor]:
    return lambda self, *given: torch.zeros(*shape, dtype=dtype)


def acme(*components: type) -> PluginHost:
    """A host with the plugin acme, where these take the place of the good ones."""
    hooks = {
        OfflineEncoder: "offline_encoders",
        OnlineMapper: "online_mappers",
        Loss: "losses",
        Regulariser: "regularisers",
        Augmentation: "augmentations",
        Backbone: "backbones",
    }
    by_hook: dict[str, type] = {}
    for component in (Signal, Mapper, Square, *components):
        by_hook[next(hook for base, hook in hooks.items() if issubclass(component, base))] = component

    def give(component: type) -> Callable[[], list[type]]:
        return m2dx.hookimpl(lambda: [component])

    host = PluginHost.discover()
    host.register("acme", SimpleNamespace(**{hook: give(component) for hook, component in by_hook.items()}))
    return host


def build(make: Make, host: PluginHost, *overrides: str) -> MultiTask:
    recipe = make(TASK, *overrides, with_host=host)
    return build_model(recipe, DataInfo(16_000, 5120, {}), host)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Unsized, ENCODER + "embed_dim must be the width C .* but is missing"),
        (changed(Signal, embed_dim=0), ENCODER + "embed_dim must be .* but is 0"),
        (changed(Signal, sample_rate=16e3), ENCODER + r"sample_rate must be a whole .* but is 16000\.0"),
        (
            changed(Signal, sample_rate=None),
            ENCODER + r"num_frames\(5120\) failed: TypeError: .* needs a sample_",
        ),
        (changed(Signal, frame_rate=1.0), ENCODER + "num_frames must give 1 frame or more.* but gave 0 for"),
        (changed(Signal, forward=fail), ENCODER + "forward on a trial batch failed: ZeroDivisionError: of"),
        (
            changed(Signal, forward=zeros(2, 7, WIDTH)),
            ENCODER + r"forward must give \(2, 16, 3\), as embed_dim and num_frames .* gave \(2, 7, 3\)",
        ),
        (changed(Signal, forward=zeros(2, 16, 4)), ENCODER + r".*\(2, 16, 3\), .* but gave \(2, 16, 4\)"),
        (changed(Signal, forward=lambda self, views: None), ENCODER + ".* but gave NoneType"),
        (
            changed(Signal, forward=zeros(2, 16, WIDTH, dtype=torch.int64)),
            ENCODER + r"forward must give torch\.float32, but gave torch\.int64",
        ),
        (
            changed(Mapper, forward=leave),
            MAPPER + "forward on a trial batch failed: SystemExit: of the plugin",
        ),
        (changed(Mapper, forward=fail), MAPPER + "forward on a trial batch failed: ZeroDivisionError: of"),
        (
            changed(Mapper, forward=zeros(2, 16, 4)),
            MAPPER + r"forward must give \(2, 16, 3\), the shape of the training signal, .* \(2, 16, 4\)",
        ),
        (changed(Square, forward=fail), LOSS + "forward on a trial batch failed: ZeroDivisionError: of"),
        (changed(Square, forward=zeros(2)), LOSS + r"forward must give \(\), a scalar, but gave \(2\)"),
        (changed(Square, forward=lambda self, p, t: (p - t).detach().sum()), LOSS + GRADIENT),
        (changed(Mapper, forward=zeros(2, 16, WIDTH)), MAPPER + GRADIENT),
        (changed(Mapper, forward=lambda self, x: x[:, :1, :WIDTH].expand(-1, 16, -1) / 0), MAPPER + FINITE),
        (
            changed(Signal, forward=lambda self, views: torch.full((2, 16, WIDTH), torch.nan)),
            ENCODER + FINITE,
        ),
        (changed(Signal, forward=zeros(2, 16, WIDTH, dtype=torch.float64)), ENCODER + FLOAT32),
        (changed(Signal, forward=lambda self, views: spoil(views.clean_wav)), ENCODER + VIEWS),
        (changed(Signal, forward=lambda self, views: spoil(views.clean_logmel)), ENCODER + VIEWS),
        (changed(Square, forward=lambda self, p, t: 0.5), LOSS + "forward must give .* but gave float"),
        (changed(Square, __init__=break_off), LOSS + ".*could not be built: ZeroDivisionError: of"),
    ],
)
def test_the_component_at_fault_is_named(component: type, message: str, tiny_recipe: Make) -> None:
    with pytest.raises(PluginError, match=message):
        build(tiny_recipe, acme(component))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forward": zeros(2)}, r"forward must give \(\), a scalar, but gave \(2\)"),
        ({"forward": fail}, "forward on a trial batch failed: ZeroDivisionError: of"),
        ({"__init__": break_off}, ".*could not be built: ZeroDivisionError: of"),
    ],
)
def test_a_regulariser_at_fault_is_named(change: dict[str, Any], message: str, tiny_recipe: Make) -> None:
    host, task = acme(changed(Spread, **change)), "tasks.mine={regulariser: spread}"
    with pytest.raises(
        PluginError, match=rf"tasks\.mine\.regulariser \('spread' of plugin 'acme'\): {message}"
    ):
        build_model(tiny_recipe(task, with_host=host), DataInfo(16_000, 5120, {}), host)


def test_a_regulariser_of_latents_asks_for_no_h_hat(tiny_recipe: Make) -> None:
    """MSM-MAE would have a layer for h-hat alone, without a gradient; with the task it does have one."""
    host, task = acme(Spread), "tasks.own={regulariser: spread, offline_encoder: signal, weight: 0.5}"
    model = build_model(
        tiny_recipe("model.method=msm_mae", task, with_host=host), DataInfo(16_000, 5120, {}), host
    )
    assert model.masked_model.to_latent is None and not model.needs_tokens
    assert model.target_shapes == {"own": (16, WIDTH)}
    assert not [name for name in model.training_state() if "offline_encoder" in name]
    with_task = build(tiny_recipe, host, task, "model.method=msm_mae")
    assert with_task.masked_model.to_latent is not None and with_task.needs_tokens


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"changes": "spectrum"}, "changes must be 'waveform' or 'logmel', but is 'spectrum'"),
        (
            {"forward": zeros(2, 7)},
            r"forward must give \(2, 5120\), the shape of its input, but gave \(2, 7\)",
        ),
        (
            {"changes": "logmel", "forward": zeros(2)},
            r"forward must give \(2, 1, 80, 32\), .* but gave \(2\)",
        ),
        (
            {"forward": lambda self, x, seeds: x.double()},
            r"forward must give torch\.float32, but gave .*float64",
        ),
        ({"forward": lambda self, x, seeds: x / 0.0}, "forward must give finite values, but some are NaN"),
        ({"forward": lambda self, x, seeds: x.mul_(2)}, "forward must leave its input as it is"),
        ({"forward": fail}, "forward on a trial batch failed: ZeroDivisionError: of"),
        ({"__init__": break_off}, ".*could not be built: ZeroDivisionError: of"),
        ({"__init__": refuse}, "weights must be given"),
    ],
)
def test_an_augmentation_at_fault_is_named(change: dict[str, Any], message: str, tiny_recipe: Make) -> None:
    host = acme(changed(Half, **change))
    recipe = tiny_recipe("augmentations=[half]", with_host=host)
    with pytest.raises(
        (PluginError, RecipeError), match=rf"augmentations\.0 \('half' of plugin 'acme'\): {message}"
    ):
        build_model(recipe, DataInfo(16_000, 5120, {}), host)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("embed", lambda x: x[:, 1:], r"embed must give \(1, 10, 192\), .* gave \(1, 9, 192\)"),
        ("embed", lambda x: x.detach(), "embed must let gradients through"),
        ("embed", lambda x: x / 0, "embed must give finite values"),
        ("embed", fail, "embed of a trial input failed: ZeroDivisionError: of the plugin"),
        ("layers", lambda x: x * 2, "layers must give 1 tensors, one for each block, but gave 2"),
        ("layers", lambda x: [x[0].double()], r"layers must give torch\.float32, but gave torch\.float64"),
        ("layers", lambda x: [x[0].detach()], "layers must let gradients through"),
        ("layers", lambda x: [x[0] / 0], "layers must give finite values"),
        ("layers", fail, "layers of a trial input failed: ZeroDivisionError: of the plugin"),
    ],
)
def test_a_backbone_at_fault_is_named(method: str, change: Any, message: str, tiny_recipe: Make) -> None:
    def spoiled(self: Encoder, *given: Any, **more: Any) -> Any:
        return change(getattr(Encoder, method)(self, *given, **more))

    host = acme(
        type("Own", (Encoder,), {"name": "own", method: spoiled, "__doc__": "A ViT that is spoiled."})
    )
    recipe = tiny_recipe("model.backbone=own", with_host=host)
    with pytest.raises(PluginError, match=rf"model\.backbone \('own' of plugin 'acme'\): {message}"):
        build_model(recipe, DataInfo(16_000, 5120, {}), host)


def test_checkpoints_leave_augmentations_out(tiny_recipe: Make) -> None:
    host = acme(Half)
    model = build(tiny_recipe, host, "augmentations=[half, {name: half}]")
    assert "views.augmentations.1.factor" in model.state_dict()
    assert not [name for name in model.training_state() if name.startswith("views")]
    model.load_training_state(model.training_state())


def test_the_encoder_is_blamed_where_its_frames_are_brought_to_tokens(tiny_recipe: Make) -> None:
    liar = changed(Signal, forward=zeros(2, 7, WIDTH))
    with pytest.raises(PluginError, match=ENCODER + r".*\(2, 16, 3\), .* but gave \(2, 7, 3\)"):
        build(tiny_recipe, acme(liar), "tasks.mine.target_frames=tokens")


def test_errors_of_m2dx_keep_their_type(tiny_recipe: Make) -> None:
    with pytest.raises(RecipeError, match=ENCODER + "weights must be given"):
        build(tiny_recipe, acme(changed(Signal, __init__=refuse)))


def test_a_trial_batch_leaves_no_trace(tiny_recipe: Make) -> None:
    host = acme()
    model = build(tiny_recipe, host)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert before["tasks.mine.online_mapper.layers.1.running_mean"].eq(0).all()
    assert before["tasks.mine.online_mapper.layers.1.num_batches_tracked"] == 0
    task = model.tasks["mine"]
    assert isinstance(task, Task) and task.online_mapper.training and not task.offline_encoder.training
    task.online_mapper.layers[0].eval()  # type: ignore[index]  # as a frozen part is
    state = torch.get_rng_state()
    recipe = tiny_recipe(TASK, with_host=host)
    shapes, data = model_shapes(recipe.audio, recipe.model), DataInfo(16_000, 5120, {})
    assert check_tasks(model, shapes, data, host) == {"mine": (16, WIDTH)}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    modes = [part.training for part in task.online_mapper.layers]  # type: ignore[union-attr]
    assert modes == [False, True, True] and task.training and not task.offline_encoder.training
    assert torch.equal(torch.get_rng_state(), state)


def test_the_mode_is_restored_after_an_error(tiny_recipe: Make) -> None:
    host = acme()
    recipe = tiny_recipe(TASK, with_host=host)
    model = build(tiny_recipe, host)
    task = model.tasks["mine"]
    assert isinstance(task, Task)
    task.loss = changed(Square, forward=zeros(2))()
    with pytest.raises(PluginError, match=r"tasks\.mine\.loss \('square' of plugin 'acme'\): "):
        check_tasks(model, model_shapes(recipe.audio, recipe.model), DataInfo(16_000, 5120, {}), host)
    assert task.online_mapper.training and not task.offline_encoder.training
