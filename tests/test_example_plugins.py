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

import pytest
import torch

import m2dx
from m2dx.contract.errors import RecipeError
from m2dx.jobs import core
from m2dx.jobs.train import make_trainer
from m2dx.testing import check_component
from m2dx.training.distributed import Processes

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
        {"VICReg": {"covariance": 1.0, "deviation": 0.5}, "SIGReg": {"directions": 8, "points": 5}},
        "tasks.spread={regulariser: vicreg, weight: auto} tasks.normal={regulariser: {name: sigreg}, weight: 0.1}",
        "tasks.spread={regulariser: vicreg, loss: mse}",
        r"tasks\.spread: regulariser stands in the place of online_mapper and loss; leave it or these out",
    ),
    Example(
        "m2dx_gram",
        {"Gram": {"across_clips": True}},
        "tasks.same={offline_encoder: log_spectrum, regulariser: gram, target_frames: tokens}",
        "tasks.same={regulariser: {name: gram, across: true}}",
        r"tasks\.same\.regulariser\.across: unknown key, with value True; did you mean 'across_clips'",
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
        {"Mixup": {"ratio": 0.2}, "SpecAugment": {"bands": 1, "frequency": 0.5}},
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


@by_plugin
def test_a_plugin_trains_and_resumes_bit_for_bit(
    example: Example, tiny_recipe: Callable[..., Any], console: Any
) -> None:
    host = m2dx.PluginHost({"m2dx": core, "plugin": module_of(example.plugin)})
    few = ["train.epochs=1.2", "train.warmup_epochs=0.2", "train.checkpoint_every=3"]

    def trained(name: str, *, resume: bool = False) -> tuple[Path, dict[str, Any]]:
        recipe = tiny_recipe(f"name={name}", *few, *fields_of(example.fields), with_host=host)
        processes = Processes(0, 1, torch.device("cpu"))
        trainer = make_trainer(recipe, host, processes, console, resume=resume)
        trainer.fit()
        newest = trainer.checkpoints.steps()[-1]
        folder = trainer.run.folder
        return folder, torch.load(folder / "checkpoints" / f"step-{newest:08d}.pt", weights_only=True)

    folder, straight = trained("straight")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, straight["step"] + 1)]
    halved = shutil.copytree(folder, folder.with_name("halved"))
    for file in (halved / "checkpoints").glob(f"step-{straight['step']:08d}.*"):  # as if stopped before
        file.unlink()
    _, again = trained("halved", resume=True)
    for part in ("step", "model", "optimizer", "rng"):
        assert same(straight[part], again[part]), part
    again_lines = [json.loads(line) for line in (halved / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in again_lines] == [line["loss"] for line in lines]


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
