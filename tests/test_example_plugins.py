"""The plugins in examples/plugins that open the training: each passes its check, trains, and resumes bit for bit."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
import soundfile
import torch
from safetensors.torch import save_file

import m2dx
from m2dx.contract.errors import RecipeError
from m2dx.jobs import core
from m2dx.jobs.train import make_trainer
from m2dx.model.regularisers import VICReg
from m2dx.testing import check_component
from m2dx.training.distributed import Processes
from m2dx.training.trainer import Trainer

PLUGINS = Path(__file__).parents[1] / "examples" / "plugins"
MOST_LINES = 80


def module_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PLUGINS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where pickle finds its classes
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Example:
    """A plugin in a recipe."""

    plugin: str
    checked: dict[str, dict[str, Any]]  # options with which its classes pass their checks
    fields: str  # of the recipe that uses it
    wrong: str  # a field with a mistake
    message: str  # what is said of it


EXAMPLES = [
    Example(
        "m2dx_muon",
        {"Muon": {"momentum": 0.9}, "LateDecay": {"decay_share": 0.5}},
        "train.optimizer={name: muon, newton_steps: 3} train.schedule={name: late_decay, decay_share: 0.4}",
        "train.schedule={name: late_decay, decay_share: 1.5}",
        r"train\.schedule\.decay_share: must be less than 1, but is 1\.5",
    ),
    Example(
        "m2dx_isotropy",
        {"SIGReg": {"directions": 8, "points": 5}},
        "tasks.normal={regulariser: {name: sigreg}, weight: auto}",
        "tasks.normal={regulariser: sigreg, loss: mse}",
        r"tasks\.normal: regulariser stands in the place of online_mapper and loss; leave it or these out",
    ),
    Example(
        "m2dx_layers",
        {"Layered": {}, "LayerMatch": {"layer": 2}},
        "model.method=layered "
        "tasks.first={offline_encoder: log_spectrum, regulariser: layer_match, target_frames: tokens}",
        "tasks.first={regulariser: {name: layer_match, layers: 1}}",
        r"tasks\.first\.regulariser\.layers: unknown key, with value 1; did you mean 'layer'",
    ),
    Example(
        "m2dx_dispersion",
        {"Dispersion": {"reveal_from": 0.2, "reveal_to": 1.0}},
        "model.masking={name: dispersion, reveal_from: 0.1, reveal_to: 1.0} model.masks_per_clip=2 train.accumulate=2",
        "model.masking.reveal_to=1.5",
        r"model\.masking\.reveal_to: must be less than or equal to 1, but is 1\.5",
    ),
    Example(
        "m2dx_augment",
        {"SpecAugment": {"bands": 1, "frequency": 0.5}},
        "augmentations=[{name: mixup}, {name: spec_augment, bands: 1}]",
        "augmentations=[mixup, {name: spec_augment, band: 1}]",
        r"augmentations\.1\.band: unknown key, with value 1; did you mean 'bands'",
    ),
    Example(
        "m2dx_microphones",
        {"Gain": {"decibels": 3.0}, "BandLimit": {"lowest": 50.0}},
        "augmentations=[{name: gain, decibels: 12}, band_limit]",
        "augmentations=band_limit",
        r"augmentations: must be a list, but is 'band_limit'",
    ),
    Example(
        "m2dx_rooms",
        {"Room": {"path": PLUGINS.parent / "sounds" / "sounds" / "drums"}},
        "augmentations=[{name: room, seconds: 0.1}] train.accumulate=2",
        "augmentations=[{name: rooms}]",
        r"augmentations\.0\.name: there is no augmentation 'rooms'; did you mean 'room'",
    ),
    Example(
        "m2dx_two_views",
        {"TwoViews": {"clip_share": 0.0}},
        "model.method=two_views noise={ratio: 0.2, mean: -6.0, source: coloured}",
        "model.method={name: two_views, clip_share: 2}",
        r"model\.method\.clip_share: must be less than or equal to 1, but is 2",
    ),
    Example(
        "m2dx_watch",
        {"Watch": {"file": "other.jsonl"}},
        "train.callbacks={board: watch}",
        "train.callbacks={board: {name: watch, to: tensorboard}}",
        r"train\.callbacks\.board\.to: must be 'wandb', 'mlflow' or 'json', but is 'tensorboard'",
    ),
    Example(
        "m2dx_weight_average",
        {"WeightAverage": {"decay": 0.9, "start": 0.1}, "EarlyStop": {"patience": 1}},
        "train.callbacks={average: {name: weight_average, decay: 0.9, start: 0.1}, stop: early_stop}",
        "train.callbacks.average.decay=1.0",
        r"train\.callbacks\.average\.decay: must be less than 1, but is 1\.0",
    ),
    Example(
        "m2dx_rotary",
        {"RotaryViT": {"base": 50.0}},
        "model.backbone={name: rotary, base: 50} model.method={name: m2d, target_layers: mean}",
        "model.backbone={name: rotary, base: 0}",
        r"model\.backbone\.base: must be greater than 0, but is 0",
    ),
    Example(
        "m2dx_convnext",
        {"ConvNeXt": {"kernel_size": 3}},
        "model.backbone={name: convnext, kernel_size: 3} model.method=msm_mae",
        "model.backbone.kernel_size=[3]",
        r"model\.backbone\.kernel_size: ",
    ),
    Example(
        "m2dx_attention_pool",
        {"AttentionPool": {"heads": 2}},
        "tasks={a: {offline_encoder: labels, online_mapper: {name: attention_pool, heads: 2}, loss: cross_entropy}}",
        "tasks.a.online_mapper.heads=0",
        r"tasks\.a\.online_mapper\.heads: must be greater than 0, but is 0",
    ),
]
by_plugin = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.plugin)


def fields_of(text: str) -> list[str]:
    """Overrides from a text, in which each begins with a word and `=`."""
    words: list[str] = []
    for word in text.split(" "):
        if "=" in word.split(":")[0].split("{")[0]:
            words.append(word)
        else:
            words[-1] += f" {word}"
    return words


@by_plugin
def test_a_plugin_is_short_and_passes_its_checks(example: Example) -> None:
    assert len((PLUGINS / f"{example.plugin}.py").read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    module = module_of(example.plugin)
    for name, options in example.checked.items():
        check_component(getattr(module, name))
        check_component(getattr(module, name), **options)


def same(one: Any, other: Any) -> bool:
    """Whether two states have the same values, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


AT_ONCE = (
    "train.optimizer=muon train.schedule=late_decay model.method=two_views model.masking=dispersion "
    "model.masks_per_clip=2 train.accumulate=2 noise={ratio: 0.2, mean: -6.0, source: coloured} "
    "augmentations=[gain, spec_augment, room, mixup] tasks.spread={regulariser: vicreg, weight: auto} "
    "tasks.same={offline_encoder: log_spectrum, regulariser: layer_match, target_frames: tokens}"
)
SEVERAL = (
    "m2dx_muon",
    "m2dx_dispersion",
    "m2dx_augment",
    "m2dx_microphones",
    "m2dx_rooms",
    "m2dx_two_views",
)
"""The plugins of all these are used at once; the slow tests train with each alone."""
RUNS = {example.plugin: example.fields for example in EXAMPLES}


OTHERS = {"m2dx_jepa": "model.method=jepa", "m2dx_transformers": "init_from=VIT weight_map=transformers_vit"}
"""Examples with tests of their own, where they train a few steps."""
FEW = "train.epochs=1.2 train.warmup_epochs=0.2 train.checkpoint_every=3"
MANY = (
    "train.epochs=60 data.epoch_size=40 train.batch_size=8 train.warmup_epochs=6 train.checkpoint_every=150"
)
"""6 steps, and 300."""
TRAININGS = [(name, FEW) for name in (*(name for name in RUNS if name not in SEVERAL), "all at once")]
TRAININGS += [pytest.param(name, MANY, marks=pytest.mark.slow) for name in (*RUNS, *OTHERS)]  # type: ignore[misc]


@pytest.mark.parametrize(("name", "steps"), TRAININGS, ids=lambda of: {FEW: "6", MANY: "300"}.get(of, of))
def test_a_plugin_trains_and_resumes_bit_for_bit(
    name: str, steps: str, tiny_recipe: Callable[..., Any], console: Any, tmp_path: Path
) -> None:
    """On real recordings; in hundreds of steps, the losses fall."""
    plugins = {name: module_of(name) for name in (RUNS if name == "all at once" else [name])}
    host, fields = m2dx.PluginHost({"m2dx": core, **plugins}), {**RUNS, **OTHERS}.get(name, AT_ONCE)
    if "VIT" in fields:
        from test_example_starts import vit

        save_file(vit(192, 1), tmp_path / "vit.safetensors")
        fields = fields.replace("VIT", str(tmp_path / "vit.safetensors"))

    def trained(name: str, *, resume: bool = False) -> tuple[Trainer, dict[str, Any]]:
        recipe = tiny_recipe(f"name={name}", *fields_of(f"{steps} {fields}"), with_host=host)
        trainer = make_trainer(recipe, host, Processes(0, 1, torch.device("cpu")), console, resume=resume)
        trainer.fit()
        return trainer, torch.load(trainer.checkpoints.newest(), weights_only=True)

    trainer, straight = trained("straight")
    folder, tasks = trainer.run.folder, trainer.recipe.tasks
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, straight["step"] + 1)]
    halved = shutil.copytree(folder, folder.with_name("halved"))
    for file in (halved / "checkpoints").glob(f"step-{straight['step']:08d}.*"):  # as if stopped before
        file.unlink()
    _, again = trained("halved", resume=True)
    for part in ("step", "model", "optimizer", "rng", "callbacks"):
        assert same(straight[part], again[part]), part
    again_lines = [json.loads(line) for line in (halved / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in again_lines] == [line["loss"] for line in lines]
    taught = [task for task, section in tasks.items() if section.offline_encoder is not None]
    for part in (trainer.model.method, *taught) if steps == MANY else ():
        losses = [line[f"loss_{part}"] for line in lines]
        assert len(losses) == 300 and sum(losses[-30:]) < sum(losses[:30]), part


@by_plugin
def test_a_mistake_in_the_recipe_of_a_plugin_is_told_with_its_field(
    example: Example, tiny_recipe: Callable[..., Any]
) -> None:
    host = m2dx.PluginHost({"m2dx": core, "plugin": module_of(example.plugin)})
    with pytest.raises(RecipeError, match=example.message):
        tiny_recipe(*fields_of(example.fields), *fields_of(example.wrong), with_host=host)


def test_another_optimizer_than_at_the_start_is_refused(
    tiny_recipe: Callable[..., Any], console: Any
) -> None:
    host = m2dx.PluginHost({"m2dx": core, "plugin": module_of("m2dx_muon")})
    processes = Processes(0, 1, torch.device("cpu"))
    make_trainer(tiny_recipe("train.epochs=0.6", with_host=host), host, processes, console).fit()
    changed = tiny_recipe("train.epochs=0.6", "train.optimizer=muon", with_host=host)
    with pytest.raises(RecipeError, match=r"train\.optimizer must be adamw, .* but is muon; set it back"):
        make_trainer(changed, host, processes, console, resume=True)


def test_dispersion_masks_what_varies_and_less_so_later() -> None:
    masking = module_of("m2dx_dispersion").Dispersion((2, 10), 10, reveal_to=1.0)
    logmel, seeds = torch.zeros(400, 1, 32, 160), torch.arange(400)
    # The first half of each row varies.
    logmel[:, :, :, :80].normal_(generator=torch.Generator().manual_seed(0))
    ids = torch.stack([masking.draw(torch.Generator().manual_seed(seed)) for seed in range(400)])

    def loud_and_masked(progress: float) -> float:
        looked = masking.look(ids, logmel, progress=progress, seeds=seeds)
        return float((looked[:, 10:] % 10 < 5).float().mean())

    assert loud_and_masked(0.0) == 1.0
    # At the middle 5 of 10 stay, and 5 are drawn from 10 quiet and 5 loud ones.
    assert abs(loud_and_masked(0.5) - 2 / 3) < 0.02
    assert abs(loud_and_masked(0.999) - 0.5) < 0.02


def test_watch_writes_metrics_and_asks_for_a_package_that_is_missing(
    tiny_recipe: Callable[..., Any], console: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = m2dx.PluginHost({"m2dx": core, "plugin": module_of("m2dx_watch")})
    processes = Processes(0, 1, torch.device("cpu"))
    recipe = tiny_recipe("train.epochs=0.6", "train.callbacks={board: watch}", with_host=host)
    trainer = make_trainer(recipe, host, processes, console)
    trainer.fit()
    trainer.callbacks.notify("scores", 3, [m2dx.Score("notes", "accuracy", 0.5, None, (0.5,), "knn")])
    files = (trainer.run.folder / name for name in ("metrics.jsonl", "watched.jsonl"))
    metrics, watched = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert watched == [*metrics, {"step": 3, "notes/knn": 0.5}] and len(metrics) == 3
    monkeypatch.setitem(sys.modules, "mlflow", None)
    refused = tiny_recipe(
        "name=refused", "train.callbacks={board: {name: watch, to: mlflow}}", with_host=host
    )
    with pytest.raises(
        RecipeError, match="watch needs the package mlflow for `to: mlflow`, but it is not inst"
    ):
        make_trainer(refused, host, processes, console)


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_watch_calls_a_package_as_that_wants(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = Mock()
    monkeypatch.setitem(sys.modules, package, called)
    watch = module_of("m2dx_watch").Watch(to=package, project="lungs")
    watch.start({"seed": 3}, tmp_path / "tiny", 0)
    watch.metrics({"step": 10, "loss": 0.5})
    if package == "wandb":
        assert called.init.call_args.kwargs["project"] == "lungs"
        called.init.return_value.define_metric.assert_called_once_with("*", step_metric="step")
        called.init.return_value.log.assert_called_once_with({"loss": 0.5, "step": 10})
    else:
        called.set_experiment.assert_called_once_with("lungs")
        called.log_metrics.assert_called_once_with({"loss": 0.5}, step=10)


def test_the_average_stands_in_the_place_of_the_weights_at_the_end() -> None:
    average = module_of("m2dx_weight_average").WeightAverage(decay=0.75, start=0.5)
    model: Any = torch.nn.Module()
    model.online = torch.nn.Linear(1, 1, bias=False)
    for step, value in enumerate((9.0, 1.0, 5.0, 9.0), start=1):
        torch.nn.init.constant_(model.online.weight, value)
        average.after_step(model, step, 4)
    assert model.online.weight.item() == (1.0 * 0.75 + 5.0 * 0.25) * 0.75 + 9.0 * 0.25


def output_of(tokens: torch.Tensor) -> m2dx.MaskedModelOutput:
    """An output whose visible patches are all but the first token."""
    return m2dx.MaskedModelOutput(tokens.mean(), tokens, tokens, tokens, tokens)


ALONE = m2dx.TaskShapes((1, 3), 16, None, 0)
NORMAL = torch.randn(400, 4, 16, generator=torch.Generator().manual_seed(0))


def test_vicreg_and_sigreg_are_small_where_features_spread() -> None:
    vectors = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])  # variance and covariance are 1
    output = output_of(vectors[:, None].expand(-1, 2, -1))
    value = VICReg(ALONE, covariance=0.5, deviation=3.0)(output, None)
    assert abs(float(value) - (2.0 + 0.5 * 2 / 2)) < 1e-3
    sigreg = module_of("m2dx_isotropy").SIGReg(ALONE).eval()
    spread = NORMAL * 3**0.5  # so that the mean of three is normal
    values = [float(sigreg(output_of(x), None)) for x in (spread, 0.2 * spread, torch.zeros_like(spread))]
    assert values[0] < 3.0 < 30.0 < values[1] < values[2]  # of 400 normal ones the expectation is about 1


def test_layers_are_compared_where_patches_are_visible() -> None:
    plugin, shapes = module_of("m2dx_layers"), m2dx.TaskShapes((2, 3), 4, 3, 4)
    layers = NORMAL[:12, 0, :4].unflatten(0, (2, 6)).unbind(0)
    match = plugin.LayerMatch(shapes, layer=2)
    torch.nn.init.eye_(match.linear.weight)
    torch.nn.init.zeros_(match.linear.bias)
    is_masked = torch.tensor([[True, False, True, False, False, True]])  # frame 2 is not seen at all
    output = output_of(layers[0][None])
    given = tuple(layer[None].masked_fill(is_masked[..., None], 0.0) for layer in layers)
    fields = (output.loss, output.latent, output.prediction, output.target, output.tokens)
    layered = plugin.LayeredOutput(*fields, given, is_masked)
    frames = torch.stack([layers[1][3], (layers[1][1] + layers[1][4]) / 2, torch.full((4,), 9.0)])[None]
    assert abs(float(match(layered, frames))) < 1e-6 < 0.5 < float(match(layered, frames + 0.5))
    assert float(match(output, frames)) > 0.5  # of h-hat, which is another layer
    with pytest.raises(RecipeError, match="layer_match needs 3 blocks, and one mask per clip"):
        plugin.LayerMatch(shapes, layer=3)(layered, frames)


def test_a_microphone_changes_level_and_band_and_a_room_keeps_the_level(tmp_path: Path) -> None:
    microphones, rooms, seeds = module_of("m2dx_microphones"), module_of("m2dx_rooms"), torch.arange(50)
    time = torch.arange(16_000) / 16_000
    tones = [torch.sin(2 * torch.pi * hertz * time).expand(50, -1) for hertz in (20, 1000, 7000)]

    def decibels(change: Any, x: torch.Tensor) -> torch.Tensor:
        return 20 * (change(x, seeds).norm(dim=1) / x.norm(dim=1)).log10()

    level = decibels(microphones.Gain(decibels=6.0), tones[1])
    assert level.abs().max() < 6.001 and level.min() < -5 and level.max() > 5
    low, middle, high = (decibels(microphones.BandLimit(16_000), tone).mean() for tone in tones)
    assert middle > -1 and low < -12 and high < -3
    assert decibels(rooms.Room(16_000), tones[1]).abs().max() < 1e-3
    delta = torch.zeros(800)
    delta[300] = 0.5  # is brought to the start, so that sounds stay in their place
    soundfile.write(tmp_path / "delta.wav", delta.numpy(), 16_000)
    torch.testing.assert_close(
        rooms.Room(16_000, path=tmp_path)(tones[1], seeds), tones[1], atol=1e-4, rtol=0
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        RecipeError, match=r"path must be a folder of impulse responses, but .*empty has no audio"
    ):
        rooms.Room(16_000, path=tmp_path / "empty")


def test_spec_augment_in_numbers() -> None:
    plugin, seeds = module_of("m2dx_augment"), torch.arange(200)
    one = torch.ones(200, 1, 10, 40)
    hidden = plugin.SpecAugment(bands=1, frequency=0.5, time=0.25)(one, seeds) == 0
    bands, frames = hidden.all(-1).sum((1, 2)), hidden.all(-2).sum((1, 2))
    assert int(bands.max()) in (4, 5) and int(frames.max()) in (9, 10) and int(frames.min()) <= 1
