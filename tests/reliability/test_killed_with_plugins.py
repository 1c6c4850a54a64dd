"""A run with every kind of plugin is killed three times, resumed, and equal to an undisturbed one to the bit."""

import filecmp
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import pytest
import torch
from m2dx_teacher import LogMelStatistics
from safetensors.torch import save_file
from test_example_plugins import PLUGINS, fields_of, module_of, same

import m2dx
from m2dx.contract.atomic import replace_text
from m2dx.contract.components import KINDS
from m2dx.encoder import checkpoint
from m2dx.encoder.checkpoint import read_checked
from m2dx.jobs import background_scoring, core
from m2dx.jobs import train as job
from m2dx.recipe.loading import recipe_to_yaml
from m2dx.results.scores import write_step_scores
from m2dx.training.trainer import Trainer

FIELDS = (
    "model.method=two_views model.backbone=rotary model.masking=dispersion model.masks_per_clip=2 "
    "train.optimizer=muon train.schedule=late_decay train.accumulate=2 "
    "noise={ratio: 0.2, mean: -6.0, source: hum} augmentations=[gain, band_limit, room, mixup, spec_augment] "
    "tasks.spread={regulariser: vicreg, weight: auto} tasks.normal={regulariser: sigreg, weight: 0.1} "
    "tasks.kind={offline_encoder: labels, online_mapper: attention_pool, loss: bce} "
    "tasks.level={offline_encoder: log_mel_statistics, online_mapper: attention_pool, loss: steep, weight: 0.1} "
    "tasks.same={offline_encoder: log_spectrum, regulariser: layer_match, target_frames: tokens} "
    "train.callbacks={average: weight_average, stop: {name: early_stop, patience: 2}, board: watch} "
    "train.epochs=2.4 train.checkpoint_every=3 weight_map=theirs data.workers=1 evaluation.every=3 "
    "evaluation.evaluators={knn: {name: knn}} evaluation.baselines=[]"
)
"""12 steps, but a probe whose scores get worse ends them after 9."""


class Theirs(m2dx.WeightMap):
    """Weights under names of their own."""

    name = "theirs"

    def tensors(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name.removeprefix("net."): state.pop(name) for name in list(state)}


class Hum(m2dx.NoiseSource):
    """Noise of a plugin."""

    name = "hum"

    def draw(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        return 0.1 * torch.randn(num_samples, generator=generator).cumsum(0).sin()


class Steep(m2dx.Loss):
    """A loss of a plugin."""

    name = "steep"

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).abs().pow(1.5).mean()


class Plugin:
    """Those three, and a teacher."""

    weight_maps = staticmethod(m2dx.hookimpl(lambda: [Theirs]))
    noise_sources = staticmethod(m2dx.hookimpl(lambda: [Hum]))
    losses = staticmethod(m2dx.hookimpl(lambda: [Steep]))
    offline_encoders = staticmethod(m2dx.hookimpl(lambda: [LogMelStatistics]))


def scored(command: list[str], **_: Any) -> subprocess.Popen[bytes]:
    """Stands for the process that scores a checkpoint; scores get worse."""
    step, encoder, run = int(command[-6]), Path(command[-5]), Path(command[-4])
    assert encoder.is_file()
    write_step_scores(run, step, [m2dx.Score("notes", "accuracy", 1 / step, None, (1 / step,), "knn")])
    return subprocess.Popen(["true"])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_in_step(patch: pytest.MonkeyPatch, step: int) -> None:
    """Kills the process when the optimizer has stepped, before the line of metrics."""
    own = Trainer.train_step

    def train_step(self: Trainer, batches: Any) -> Any:
        done = own(self, batches)
        if self.step == step:
            die()
        return done

    patch.setattr(Trainer, "train_step", train_step)


def dying_in_save(patch: pytest.MonkeyPatch, step: int) -> None:
    """Kills the process when the checkpoint is written aside in part, and has not got its name."""
    own = checkpoint.replace_file

    def replace_file(path: Path, write: Any) -> None:
        if path.name == f"step-{step:08d}.pt":
            path.with_name(f".{path.name}.partial").write_bytes(b"PK")
            die()
        own(path, write)

    patch.setattr(checkpoint, "replace_file", replace_file)


CLOCK = ("time", "clips_per_second")
KILLS = ((dying_in_step, 2), (dying_in_save, 6), (dying_in_step, 8))
"""Before the first checkpoint; in the second one (the run goes on from step 3); when the scores of 6 are there."""


@pytest.mark.slow
def test_a_run_with_every_kind_of_plugin_is_killed_three_times(
    tiny_recipe: Callable[..., Any], few_notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = {path.stem: module_of(path.stem) for path in PLUGINS.glob("*.py")}
    host = m2dx.PluginHost({"m2dx": core, "own": Plugin, **examples})
    torch.manual_seed(1)
    theirs = examples["m2dx_rotary"].RotaryViT(m2dx.PatchGrid((80, 32), (16, 16)), m2dx.ViTSize(192, 1, 3))
    save_file(
        {f"net.{name}": of for name, of in theirs.state_dict().items()}, tmp_path / "theirs.safetensors"
    )
    notes = f"evaluation.tasks={{notes: {{dataset: {{name: csv, path: {few_notes}}}}}}}"
    start = f"init_from={tmp_path / 'theirs.safetensors'}"
    recipe = tmp_path / "all.yaml"
    recipe.write_text(recipe_to_yaml(tiny_recipe(start, notes, *fields_of(FIELDS), with_host=host)))
    assert kinds_brought(recipe.read_text(), host) == KINDS.keys() - {"dataset", "evaluator"}
    monkeypatch.setattr(m2dx.PluginHost, "discover", classmethod(lambda cls: host))
    monkeypatch.setattr(background_scoring, "start_child", scored)
    monkeypatch.setattr(job, "write_page", lambda run: replace_text(run.folder / "report.html", "page"))

    def run(name: str) -> int | None:
        arguments = ["train", str(recipe), "--resume-or-begin", f"name={name}"]
        return forks.wait(forks.start(arguments, tmp_path / f"{name}.log"), 300)

    assert run("whole") == 0, (tmp_path / "whole.log").read_text()
    for kill, step in KILLS:
        with pytest.MonkeyPatch.context() as patch:
            kill(patch, step)
            assert run("killed") == -signal.SIGKILL, (tmp_path / "killed.log").read_text()
    assert run("killed") == 0, (tmp_path / "killed.log").read_text()
    told = (tmp_path / "killed.log").read_text()
    assert [f"resuming from step {step}" in told for step in (3, 6, 9)] == [True, True, False]
    assert forks.TRACEBACK not in told and "ended after step 9 by train.callbacks.stop" in told

    whole, killed = (tmp_path / "runs" / name for name in ("whole", "killed"))
    last = [read_checked(folder / "checkpoints" / "step-00000009.pt") for folder in (whole, killed)]
    for part in ("step", "model", "optimizer", "scaler", "measured", "rng", "callbacks"):
        assert same(last[0][part], last[1][part]), part
    assert last[0]["callbacks"].keys() == {"average", "stop"}
    for name, count in (("metrics.jsonl", 9), ("watched.jsonl", 9 + 3 + 1)):
        lines = [timeless(folder / name) for folder in (whole, killed)]
        assert lines[0] == lines[1] and len(lines[0]) == count, name
    for name in ("encoder/model.safetensors", "scores.json", "scores_by_step.jsonl"):
        assert filecmp.cmp(whole / name, killed / name, shallow=False), name
    assert not [*killed.rglob("*.partial"), *killed.rglob("*.damaged")]


def kinds_brought(recipe: str, host: m2dx.PluginHost) -> set[str]:
    """The kinds of which the recipe names components that are not of the core."""
    own = m2dx.PluginHost({"m2dx": core})
    names = {kind: set(host.names(kind)) - set(own.names(kind)) for kind in KINDS}
    return {kind for kind in KINDS if any(re.search(rf"\b{name}\b", recipe) for name in names[kind])}


def timeless(file: Path) -> list[str]:
    """Lines of JSON without what depends on the clock, each once: a score from before a kill is heard again."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [{name: of for name, of in line.items() if name not in CLOCK} for line in lines]
    return list(dict.fromkeys(map(json.dumps, kept)))
