"""Two processes that share a model train as one does, and go on with each other's checkpoints."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from shared_plugins import registered, with_probe
from test_example_plugins import same
from torch import Tensor, nn

from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import load_encoder
from m2dx.encoder.checkpoint import CheckpointFolder, read_checked
from m2dx.encoder.weights import export_encoder
from m2dx.jobs.train import make_trainer as make_trainer_of
from m2dx.recipe.loading import load_recipe, recipe_to_yaml
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Parallel, Processes, share_model
from m2dx.training.run_folder import start_run_folder
from m2dx.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
STEPS, ACCUMULATE = 8, 2
OPTIONS = [
    "model.size=tiny",
    "model.depth=2",
    "model.predictor={embed_dim: 24, depth: 2, num_heads: 2}",
    "data.epoch_size=16",
    "data.workers=0",
    "data.mean=-7",
    "data.std=4",
    "noise.mean=-7",
    "noise.ratio=0.2",
    f"train.epochs={STEPS / 4}",
    "train.warmup_epochs=0",
    "train.batch_size=4",
    "train.base_lr=0.05",
    "train.clip_norm=2",  # below the norm of some steps
    "train.precision=fp32",
    "train.device=cpu",
    "train.log_every=1",
    "train.rankme_every=4",
    "evaluation=null",
]
BAD = [
    "data.max_bad_fraction=0.5",
    "data.epoch_size=12",
    "train.epochs=2",
    "train.accumulate=2",
    "train.log_every=4",
]
"""With a file that cannot be read: 6 steps, and a line of metrics after 4."""
SMALL_DATA = [
    "model.method={name: m2d, target_layers: mean, standardise_target: channel, loss: mse}",
    "model.freeze_patch_embedding=true",
    "tasks.labels.weight=auto",
    "model.masks_per_clip=2",
    "train.callbacks={average: {name: weight_average, decay: 0.5, start: 0.1}}",
]
"""What depends on the micro-batch, but not on who has it; at the end the average stands in the place of the weights."""
PROBED = "{every: 1, tasks: {notes: {dataset: {name: csv, path: %s}}}, evaluators: {knn: knn}}"
PLUGINS = [
    "model.masking={name: dispersion, reveal_to: 1.0}",
    "model.masks_per_clip=2",
    "augmentations=[gain, band_limit, {name: room, seconds: 0.1}, spec_augment, mixup]",
    "tasks.spread={regulariser: vicreg, weight: 0.1}",
    "train.schedule={name: late_decay, decay_share: 0.5}",
    "train.checkpoint_every=1",
    "train.callbacks={average: weight_average, stop: {name: early_stop, patience: 2}, board: watch}",
    f"evaluation={PROBED % (ROOT / 'examples' / 'sounds' / 'instrument.csv')}",
]
"""A probe ends it after 3 of 8 steps."""
IN_SHARDS = [*(of for of in PLUGINS if not of.startswith("train.callbacks")), "train.sharding=fsdp"]
RANDOM = ["tasks.normal={regulariser: {name: sigreg}, weight: 0.1}"]
"""Each process draws its own directions."""
APART = ["train.callbacks={board: listener}", "train.epochs=0.5"]
METRICS = ("loss", "loss_m2d", "loss_labels", "grad_norm", "rankme")


@cache
def plugins() -> PluginHost:
    """The installed components, which take a moment to describe."""
    return registered(PluginHost.discover())


def recipe_of(folder: Path, name: str, *options: str) -> Recipe:
    """A small model on the quickstart's recordings, of which some are labelled and some are not."""
    given = [*OPTIONS, f"name={name}", f"output={folder}", *options]
    return load_recipe(ROOT / "benchmarks" / "recipes" / "step.yaml", given, host=plugins())


def train(recipe: Recipe, *, resume: bool = False, stop: int | None = None) -> Trainer:
    """Trains in this process, up to a step."""
    alone = Processes(0, 1, torch.device("cpu"))
    trainer: Trainer = with_probe(
        make_trainer_of(recipe, plugins(), alone, Console(quiet=True), resume=resume)
    )
    start_run_folder(trainer.recipe, resume=resume)
    train_step = Trainer.train_step

    def stopping(self: Trainer, batches: Any) -> Any:
        if self.step + 1 == stop:
            signal.raise_signal(signal.SIGTERM)
        return train_step(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        trainer.fit()
    return trainer


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[dict[str, Any]]], Any]:
    """Runs jobs in two processes of one torchrun; what each process reports of each."""

    def run(jobs: list[dict[str, Any]]) -> Any:
        folder = tmp_path_factory.mktemp("together")
        for number, job in enumerate(jobs):
            path = folder / f"{number}.yaml"
            path.write_text(recipe_to_yaml(job["recipe"]))
            job["recipe"] = str(path)
        (folder / "jobs.json").write_text(json.dumps(jobs))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "M2DX_PLUGINS": ""}
        program = Path(__file__).with_name("processes.py")
        done = subprocess.run(
            [*command, str(program), str(folder / "jobs.json")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return [json.loads((folder / f"jobs.json.{rank}").read_text()) for rank in (0, 1)]

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, together: Any) -> SimpleNamespace:
    """Whole runs of one process and of two, and one that changes hands at the steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("runs")
    fsdp, accumulate = "train.sharding=fsdp", f"train.accumulate={ACCUMULATE}"
    one = train(recipe_of(folder, "one"))
    train(recipe_of(folder, "handed"), stop=2)
    bad = [*BAD, f"data.sets.more={{dataset: {{name: folder, path: {bad_folder(folder)}}}, repeat: 500}}"]
    alone = train(recipe_of(folder, "bad-alone", *bad))
    train(recipe_of(folder, "small-alone", *SMALL_DATA, accumulate))
    train(recipe_of(folder, "plugins-alone", *PLUGINS, accumulate))
    reports = together(
        [
            {"recipe": recipe_of(folder, "copies", accumulate), "resume": False, "stop": None},
            {"recipe": recipe_of(folder, "shards", accumulate, fsdp), "resume": False, "stop": None},
            {"recipe": recipe_of(folder, "handed", fsdp), "resume": True, "stop": 4},
            {"recipe": recipe_of(folder, "handed", accumulate), "resume": True, "stop": 6},
            {"recipe": recipe_of(folder, "bad", *bad), "resume": False, "stop": 3},
            {"recipe": recipe_of(folder, "bad", *bad), "resume": True, "stop": None},
            {"recipe": recipe_of(folder, "small", *SMALL_DATA), "resume": False, "stop": None},
            {"recipe": recipe_of(folder, "plugins", *PLUGINS), "resume": False, "stop": None},
            {"recipe": recipe_of(folder, "plugin-shards", *IN_SHARDS), "resume": False, "stop": 3},
            {"recipe": recipe_of(folder, "whole", *PLUGINS, *RANDOM), "resume": False, "stop": None},
            {"recipe": recipe_of(folder, "parts", *PLUGINS, *RANDOM), "resume": False, "stop": 2},
            {"recipe": recipe_of(folder, "parts", *PLUGINS, *RANDOM), "resume": True, "stop": None},
            {"recipe": recipe_of(folder, "apart", *APART), "resume": False, "stop": None},
        ]
    )
    last = train(recipe_of(folder, "handed", "train.accumulate=4"), resume=True)
    names = ("copies", "shards", "handed by shards", "handed by copies", "stopped", "bad", "small")
    names += ("plugins", "plugin shards", "whole", "stopped at 2", "parts", "apart")
    found, of_other = (dict(zip(names, report, strict=True)) for report in reports)
    return SimpleNamespace(folder=folder, one=one, last=last, alone=alone, found=found, of_other=of_other)


def bad_folder(folder: Path) -> Path:
    """A folder with a file that can be read, and one that cannot."""
    more = folder / "more"
    more.mkdir()
    wav = np.random.default_rng(0).normal(scale=0.1, size=6400)
    soundfile.write(more / "good.wav", wav, 16_000)
    (more / "bad.wav").write_text("not audio")
    return more


def state_of(runs: SimpleNamespace, name: str, step: int = STEPS) -> dict[str, Any]:
    return read_checked(CheckpointFolder(runs.folder / name / "checkpoints").file(step))


def metrics_of(runs: SimpleNamespace, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (runs.folder / name / "metrics.jsonl").read_text().splitlines()]


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Weights to 1e-4 (a step moves each by up to 8e-4)."""
    assert list(one) == list(other)
    for name, value in one.items():
        assert type(other[name]) is Tensor and other[name].device.type == "cpu"
        parts = [(value, other[name], 1e-4)]
        if name.endswith("qkv.bias"):
            # The bias of the keys has no gradient but rounding, which Adam makes steps of.
            limits = (1e-4, 8e-3, 1e-4)  # of queries, keys and values
            parts = list(zip(value.chunk(3), other[name].chunk(3), limits, strict=True))
        for alone, together, atol in parts:
            torch.testing.assert_close(
                together, alone, rtol=0, atol=atol, msg=lambda text, name=name: name + text
            )


@pytest.mark.parametrize("name", ["copies", "shards", "handed"])
def test_losses_are_those_of_one_process(runs: SimpleNamespace, name: str) -> None:
    """To 1e-5; the same clips, crops and masks, whoever takes them, and whoever went on with the run."""
    ours, theirs = metrics_of(runs, "one"), metrics_of(runs, name)
    assert [line["step"] for line in theirs] == list(range(1, STEPS + 1))
    for key in METRICS:
        tolerance = 1e-3 if key == "rankme" else 1e-5
        assert [line.get(key) for line in theirs] == [
            pytest.approx(line[key], rel=tolerance) if key in line else None for line in ours
        ], key


def test_a_stop_and_a_bad_file_are_known_to_both(runs: SimpleNamespace) -> None:
    """One process is asked to stop, between two lines of metrics; files that cannot be read are told once."""
    assert runs.found["stopped"]["stopped_by"] == "another process"
    assert runs.of_other["stopped"]["stopped_by"] == "SIGTERM"
    assert runs.found["stopped"]["steps"] == runs.of_other["stopped"]["steps"] == 3
    for found in (runs.found["bad"], runs.of_other["bad"]):
        assert (found["steps"], found["stopped_by"], found["bad_files"]) == (6, None, 1)
    assert (runs.folder / "bad" / "bad_files.tsv").read_text().count("bad.wav") == 1
    alone, together = metrics_of(runs, "bad-alone"), metrics_of(runs, "bad")
    assert [line["step"] for line in together] == [4, 6]
    for name in ("loss", "loss_m2d", "loss_labels", "grad_norm", "lr", "ema_decay"):
        assert [line[name] for line in together] == pytest.approx([line[name] for line in alone], rel=1e-5), (
            name
        )
    assert_close(state_of(runs, "bad-alone", 6)["model"], state_of(runs, "bad", 6)["model"])


def test_weights_that_are_auto_are_the_same_in_both(runs: SimpleNamespace) -> None:
    alone, together = metrics_of(runs, "small-alone"), metrics_of(runs, "small")
    for name in (*METRICS[:4], "gradient_m2d", "gradient_labels", "weight_labels"):
        values = [[line[name] for line in lines if name in line] for lines in (alone, together)]
        assert values[1] == pytest.approx(values[0], rel=1e-4), name
    assert alone[0]["loss"] == pytest.approx(alone[0]["loss_m2d"], abs=1e-4) and "weight_labels" in alone[3]
    assert_close(state_of(runs, "small-alone")["model"], state_of(runs, "small")["model"])


def test_what_plugins_do_is_the_same_whoever_has_a_clip(runs: SimpleNamespace) -> None:
    """A masking that looks, changes of wave and log-mel, a term over the micro-batch, a stop that rank 0 asks for."""
    assert [of["plugins"]["steps"] for of in (runs.found, runs.of_other)] == [3, 3]
    alone, together, shards = (metrics_of(runs, f"plugin{of}") for of in ("s-alone", "s", "-shards"))
    assert [line["step"] for line in together] == [1, 2, 3]
    for name in (*METRICS[:4], "loss_spread"):
        values = [[line[name] for line in lines] for lines in (alone, together, shards)]
        assert values[1:] == [pytest.approx(values[0], rel=1e-5)] * 2, name
    one, other = state_of(runs, "plugins-alone", 3), state_of(runs, "plugins", 3)
    assert_close(one["model"], other["model"])
    assert_close(one["callbacks"].pop("average"), other["callbacks"].pop("average"))
    assert one["callbacks"] == other["callbacks"] == {"stop": {"means": [1.0, 1 / 2]}}


def test_two_processes_with_plugins_resume_bit_for_bit(runs: SimpleNamespace) -> None:
    """Both are stopped before the scores of the step come; the callback hears them when the run goes on."""
    assert [runs.found[name]["steps"] for name in ("whole", "stopped at 2", "parts")] == [3, 2, 3]
    whole, parts = state_of(runs, "whole", 3), state_of(runs, "parts", 3)
    assert not torch.equal(*whole["rng"])
    assert all(same(parts[part], whole[part]) for part in ("model", "optimizer", "rng", "callbacks"))
    losses = [[line["loss"] for line in metrics_of(runs, name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_weights_that_differ_between_processes_end_the_run(runs: SimpleNamespace) -> None:
    errors = [of["apart"]["error"] for of in (runs.found, runs.of_other)]
    assert errors[0] == errors[1]
    assert re.match(
        r"all 2 processes must have the same weights, but masked_model\.online\.\S+ differs; let what a plugin",
        errors[0],
    )
    assert not (runs.folder / "apart" / "checkpoints").exists()


def test_each_process_has_its_own_dropout(runs: SimpleNamespace) -> None:
    rng = state_of(runs, "copies")["rng"]
    assert len(rng) == 2 and not torch.equal(*rng)


@pytest.mark.parametrize("name", ["copies", "shards", "handed"])
def test_weights_are_those_of_one_process(runs: SimpleNamespace, name: str) -> None:
    one, other = state_of(runs, "one"), state_of(runs, name)
    assert_close(one["model"], other["model"])
    assert one["optimizer"]["state"].keys() == other["optimizer"]["state"].keys()
    for number, moments in one["optimizer"]["state"].items():
        for key, value in moments.items():
            assert type(other["optimizer"]["state"][number][key]) is Tensor
            torch.testing.assert_close(other["optimizer"]["state"][number][key], value, rtol=1e-2, atol=1e-4)


def test_the_run_changed_hands(runs: SimpleNamespace) -> None:
    """So that the equality above says something."""
    found = runs.found
    sharded = [name for name in found if name != "apart" and found[name]["sharded"]]
    assert sharded == ["shards", "handed by shards", "plugin shards"]
    assert found["copies"]["share of weights"] == found["handed by copies"]["share of weights"] == 1.0
    assert 0.5 <= found["shards"]["share of weights"] < 0.51  # rows that two do not divide
    assert [found[name]["steps"] for name in list(found)[:4]] == [STEPS, STEPS, 4, 6]
    assert found["handed by shards"]["stopped_by"] == "another process"
    assert runs.last.step == STEPS


def test_gradients_are_sent_once_a_step(runs: SimpleNamespace) -> None:
    """Whatever the accumulation; beside them go the losses, what is measured, and the norm of the shards."""
    copies, shards = runs.found["copies"], runs.found["shards"]
    assert copies["gradients sent per step"] == 1.0 and copies["all_reduce per step"] == 1.0 + 2 / STEPS
    assert copies["reduce_scatter per step"] == 0.0
    trained = [
        name for name, _ in runs.one.model.named_modules() if "blocks." in name and name.count(".") == 4
    ]
    assert len({name for name in trained if "target" not in name}) == 4
    assert shards["reduce_scatter per step"] == 4 + 1  # a group for each trained block, and one for the rest
    assert shards["gradients sent per step"] == 0.0


def test_an_encoder_of_shards_is_an_encoder(runs: SimpleNamespace, tmp_path: Path) -> None:
    export_encoder(runs.folder / "shards", tmp_path / "encoder")
    encoder = load_encoder(tmp_path / "encoder")
    wav = torch.randn(1, encoder.sample_rate, generator=torch.Generator().manual_seed(0))
    own = runs.one.model.masked_model.online.state_dict()
    assert encoder.encoder.state_dict().keys() == own.keys()
    assert encoder.clip(wav).isfinite().all()


def test_one_process_has_nothing_to_share(runs: SimpleNamespace) -> None:
    alone = Processes(0, 1, torch.device("cpu"))
    recipe = recipe_of(runs.folder, "alone", "train.sharding=fsdp")
    shared = share_model(runs.one.model, recipe.train, alone)
    assert type(shared) is Parallel and shared.forward is runs.one.model


def test_a_weight_without_dimension_cannot_be_in_shards(runs: SimpleNamespace) -> None:
    model = copy.deepcopy(runs.one.model)
    model.tasks["labels"].online_mapper.scale = nn.Parameter(torch.tensor(1.0))
    recipe = recipe_of(runs.folder, "scalar", "train.sharding=fsdp")
    with pytest.raises(
        RecipeError, match=r"at least one dimension, but tasks\.labels\.online_mapper\.scale has none"
    ):
        share_model(model, recipe.train, Processes(0, 2, torch.device("cpu")))
