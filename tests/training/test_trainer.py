"""The training loop on real recordings with a tiny model."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import m2dx
from m2dx.contract.errors import PluginError, RecipeError, TrainingError
from m2dx.contract.host import PluginHost, hook_name
from m2dx.data.augmentations import MelShift
from m2dx.data.csv_list import CsvDataset
from m2dx.data.loader import batch_loader
from m2dx.encoder.weights import export_encoder
from m2dx.jobs import core
from m2dx.model.losses import MSE
from m2dx.model.m2d import M2D
from m2dx.model.mappers import PoolLinearMapper
from m2dx.model.offline_encoders import Labels
from m2dx.model.vit import Encoder
from m2dx.training import monitor
from m2dx.training.optimizers import AdamW
from m2dx.training.trainer import Trainer


def losses_of(trainer: Trainer, name: str = "loss") -> list[float]:
    lines = (trainer.run.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)[name] for line in lines]


def test_losses_decrease(tiny_recipe: Any, make_trainer: Any, console: Console) -> None:
    recipe = tiny_recipe("train.epochs=12", "train.log_every=10", labels=True, noise=True)
    trainer = make_trainer(recipe)
    target = {name: p.clone() for name, p in trainer.model.masked_model.target.named_parameters()}
    summary = trainer.fit()
    for name in ("loss", "loss_m2d", "loss_labels"):
        first, *_, last = losses_of(trainer, name)
        assert last < first - 0.05, name
    assert (summary.steps, summary.total_steps, summary.clips) == (60, 60, 240)
    assert summary.stopped_by is None and summary.bad_files == 0
    assert summary.last_metrics["loss"] == losses_of(trainer)[-1]
    moved = trainer.model.masked_model.target.named_parameters()
    assert any(not torch.equal(p, target[name]) for name, p in moved)
    assert "step 60/60" in console.export_text()


TASK = "tasks.own={offline_encoder: labels, online_mapper: pool_linear, loss: mse}"


@pytest.mark.parametrize(
    ("kind", "base", "method", "recipe"),
    [
        ("offline_encoder", Labels, "forward", TASK.replace("labels", "late")),
        ("online_mapper", PoolLinearMapper, "forward", TASK.replace("pool_linear", "late")),
        ("loss", MSE, "forward", TASK.replace("mse", "late")),
        ("augmentation", MelShift, "forward", "augmentations=[late]"),
        ("backbone", Encoder, "embed", "model.backbone=late"),
        ("method", M2D, "after_step", "model.method=late"),
        ("optimizer", AdamW, "step", "train.optimizer=late"),
    ],
)
def test_a_component_that_fails_during_training_is_named(
    tiny_recipe: Any, make_trainer: Any, kind: str, base: type, method: str, recipe: str
) -> None:
    began = False

    def fail(self: Any, *given: Any, **more: Any) -> Any:
        if began:
            raise ZeroDivisionError("of the plugin")
        return getattr(base, method)(self, *given, **more)

    late = type("Late", (base,), {"name": "late", "__doc__": base.__doc__, method: fail})
    host = PluginHost(
        {"m2dx": core, "acme": SimpleNamespace(**{hook_name(kind): m2dx.hookimpl(lambda: [late])})}
    )
    trainer = make_trainer(tiny_recipe(recipe, with_host=host), with_host=host)
    began = True
    label = (
        f"{kind.replace('_', ' ')} 'late' of plugin 'acme' failed in step 1: ZeroDivisionError: of the plugin"
    )
    with pytest.raises(PluginError, match=label):
        trainer.fit()


def test_what_is_looked_at_is_of_the_whole_batch(tiny_recipe: Any, make_trainer: Any) -> None:
    """However many passes it takes: shares of the target, gradient norms and the weight that follows them."""

    def look(passes: int) -> dict[str, float]:
        recipe = tiny_recipe(
            f"name=passes{passes}", f"train.accumulate={passes}", "train.rankme_every=1", labels=True
        )
        auto = recipe.tasks["labels"].model_copy(update={"weight": "auto"})
        trainer = make_trainer(recipe.model_copy(update={"tasks": {"labels": auto}}))
        batches = iter(batch_loader(trainer.run.crops, trainer.run.batches(), workers=0))
        _, measured = trainer.train_step(batches)
        assert measured is not None
        weight = float(trainer.model.tasks["labels"].weight)
        return {**{name: float(value) for name, value in measured.scalars.items()}, "weight": weight}

    whole = look(1)
    assert {"target_clip", "gradient_m2d", "gradient_labels", "weight_labels"} <= whole.keys()
    for passes in (2, 4):
        assert look(passes) == pytest.approx(whole, rel=1e-3)


def test_a_line_of_metrics(tiny_recipe: Any, make_trainer: Any) -> None:
    """Its total is eq. (6), and it says what the step used."""
    trainer = make_trainer(
        tiny_recipe("train.epochs=1", "train.rankme_every=5", "model.weight=0.3", labels=True)
    )
    trainer.fit()
    lines = [json.loads(text) for text in (trainer.run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    keys = {"step", "epoch", "loss", "loss_m2d", "loss_labels", "lr", "ema_decay", "grad_norm", "time"}
    measured = {
        "rankme",
        "target_constant",
        "target_position",
        "target_clip",
        "gradient_m2d",
        "gradient_labels",
    }
    assert set(lines[0]) == {*keys, "clips_per_second"} and set(lines[4]) == {*set(lines[0]), *measured}
    for line in lines:
        assert line["loss"] == pytest.approx(0.3 * line["loss_m2d"] + 0.5 * line["loss_labels"], abs=1e-5)
    assert lines[0]["lr"] == 0.0 and lines[0]["ema_decay"] == 0.99
    assert lines[4]["epoch"] == 1.0 and lines[4]["ema_decay"] == pytest.approx(0.999)
    assert lines[3]["lr"] == pytest.approx(0.05 * 4 / 256 * (1 + math.cos(math.pi * 0.5 / 2.5)) / 2)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.method=msm_mae", "model.ema_decay=null"],
        ["model.method={name: m2d_all_patches, target_init: online, loss: mse}"],
        ["model.patch_size=[80, 2]", "train.clip_norm=null"],
        ["train.precision=bf16"],
        ["model.freeze_patch_embedding=true"],
        ["model.method={name: m2d, target_layers: mean, standardise_target: channel, loss: mse}"],
    ],
)
def test_variants_train(tiny_recipe: Any, make_trainer: Any, overrides: list[str]) -> None:
    trainer = make_trainer(tiny_recipe("train.epochs=6", "train.log_every=5", *overrides, labels=True))
    trainer.fit()
    losses = losses_of(trainer)
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    text = (trainer.run.folder / "metrics.jsonl").read_text()
    assert ("ema_decay" in text) == ("model.method=msm_mae" not in overrides)  # which has no target network


@pytest.mark.parametrize("method", ["m2d", "msm_mae"])
def test_a_frozen_patch_embedding_stays_as_it_starts(
    tiny_recipe: Any, make_trainer: Any, method: str
) -> None:
    """From random weights or those of `init_from`, over a stop, and in the export; the rest is trained."""
    options = ["model.freeze_patch_embedding=true", f"model.method={method}", "train.warmup_epochs=0"]

    def embedding(trainer: Trainer) -> Tensor:
        return trainer.model.masked_model.online.patch_embed.proj.weight

    first = make_trainer(tiny_recipe(*options, "name=first", "train.epochs=0.6"))
    start = embedding(first).clone()
    blocks = first.model.masked_model.online.trunk.blocks[0].attn.qkv.weight
    before = blocks.clone()
    first.fit()
    resumed = make_trainer(tiny_recipe(*options, "name=first", "train.epochs=1.2"), resume=True)
    resumed.fit()
    assert not torch.equal(blocks, before)
    encoder = export_encoder(resumed.run.folder, resumed.run.folder / "encoder")
    further = make_trainer(tiny_recipe(*options, "name=further", "seed=1", f"init_from={encoder}"))
    further.fit()
    exported = m2dx.load_encoder(encoder).encoder.patch_embed.proj.weight
    for weight in (embedding(first), embedding(resumed), exported, embedding(further)):
        assert torch.equal(weight, start)


def test_bf16_is_used_and_stays_close(tiny_recipe: Any, make_trainer: Any) -> None:
    full, half = (
        make_trainer(tiny_recipe("train.epochs=0.8", f"train.precision={p}", f"name={p}"))
        for p in ("fp32", "bf16")
    )
    full.fit()
    half.fit()
    assert losses_of(half) != losses_of(full)
    assert losses_of(half) == pytest.approx(losses_of(full), abs=0.02)


def test_fp16_needs_a_gpu(tiny_recipe: Any, make_trainer: Any) -> None:
    with pytest.raises(RecipeError, match="fp16 needs a GPU, but the device is cpu"):
        make_trainer(tiny_recipe("train.precision=fp16"))


@pytest.mark.parametrize("labels", [False, True])
def test_accumulation_does_not_change_the_losses(tiny_recipe: Any, make_trainer: Any, labels: bool) -> None:
    one, two = (
        make_trainer(tiny_recipe(f"train.accumulate={n}", f"name=by{n}", labels=labels, noise=True))
        for n in (1, 2)
    )
    one.fit()
    two.fit()
    assert losses_of(two) == pytest.approx(losses_of(one), abs=1e-5)
    assert losses_of(two, "grad_norm") == pytest.approx(losses_of(one, "grad_norm"), rel=1e-4)


def test_results_do_not_depend_on_workers(tiny_recipe: Any, make_trainer: Any) -> None:
    alone, helped = (
        make_trainer(tiny_recipe("train.epochs=0.6", f"data.workers={n}", f"name=by{n}", noise=True))
        for n in (0, 1)
    )
    alone.fit()
    helped.fit()
    assert losses_of(alone) == losses_of(helped)


def test_a_zero_rate_and_a_decay_of_1_change_nothing(tiny_recipe: Any, make_trainer: Any) -> None:
    """The learning rate and the decay of the schedule are the ones in use."""
    trainer = make_trainer(tiny_recipe("train.epochs=0.6"))
    still = {"peak_lr": 1e-30, "min_lr": 0.0, "ema_start": 1.0, "ema_end": 1.0}
    trainer.rates = replace(trainer.rates, **still)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.fit()
    for key, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=1e-8)


def test_gradients_are_clipped(tiny_recipe: Any, make_trainer: Any) -> None:
    trainer = make_trainer(tiny_recipe("train.clip_norm=0.001", "train.epochs=0.6"))
    norms: list[Tensor] = []
    step = trainer.optimizer.step

    def note(*args: Any, **options: Any) -> Any:
        grads = [p.grad for group in trainer.optimizer.param_groups for p in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(grads))
        return step(*args, **options)

    trainer.optimizer.step = note
    trainer.fit()
    assert torch.stack(norms).tolist() == pytest.approx([0.001] * 3, rel=1e-3)
    assert min(losses_of(trainer, "grad_norm")) > 0.01  # what is logged is the norm before clipping


def test_a_loss_that_is_not_finite_stops_the_run(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_recipe("train.checkpoint_every=1", "train.log_every=10"))
    forward, calls = M2D.forward, 0

    def break_third(self: M2D, logmel: Tensor, mask: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(self, logmel * (float("nan") if calls == 3 else 1.0), mask, **options)

    monkeypatch.setattr(M2D, "forward", break_third)
    with pytest.raises(TrainingError) as error:
        trainer.fit()
    assert "at step 3" in str(error.value) and "loss nan" in str(error.value)
    named = [line.strip() for line in str(error.value).splitlines() if line.endswith(".ogg")]
    assert 1 <= len(named) <= 4 and all(Path(name).is_file() for name in named)
    assert trainer.checkpoints.steps() == [1, 2]  # the broken weights were not saved


def test_the_collapse_alarm_is_raised_and_counted(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tiny_recipe("train.epochs=0.8", "train.rankme_every=2"))
    with torch.no_grad():
        trainer.model.masked_model.online.trunk.norm.weight.zero_()
        trainer.model.masked_model.online.trunk.norm.bias.fill_(1.0)  # every feature is the same
    trainer.rates = type(trainer.rates)(**{**vars(trainer.rates), "peak_lr": 0.0})
    assert trainer.fit().collapse_warnings == 2
    assert "the features are collapsing: RankMe is 1.00 at step 2" in caplog.text
    healthy = make_trainer(tiny_recipe("train.epochs=0.8", "train.rankme_every=2", "name=healthy"))
    assert healthy.fit().collapse_warnings == 0
    assert healthy.checkpoints.steps() == [4] and monitor.LEAST_RANKME > 1


def test_rankme_looks_at_every_micro_batch(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 clips of 4 visible patches each, in 1 or 4 backward passes, and no more rows than wanted."""
    seen: list[Tensor] = []
    monkeypatch.setattr("m2dx.training.trainer.rankme", lambda rows: seen.append(rows) or 9.0)
    options = ["train.epochs=0.6", "train.rankme_every=2"]
    for accumulate in (1, 4):
        make_trainer(tiny_recipe(*options, f"train.accumulate={accumulate}", f"name=by{accumulate}")).fit()
    assert [tuple(rows.shape) for rows in seen] == [(16, 192)] * 4  # at step 2 and the last one, 3
    torch.testing.assert_close(seen[2], seen[0], rtol=0, atol=1e-5)
    monkeypatch.setattr("m2dx.training.monitor.RANKME_ROWS", 8)
    make_trainer(tiny_recipe(*options, "train.accumulate=4", "name=few")).fit()
    assert seen[-1].shape == (8, 192)


def test_the_noise_s_missing_lines_are_told(tiny_recipe: Any, make_trainer: Any, sounds: Path) -> None:
    class Lacking(CsvDataset):
        name = "lacking"

        def missing(self) -> list[str]:
            return ["half of it"]

    with_lacking = PluginHost.discover()
    with_lacking.register("lacking", SimpleNamespace(datasets=m2dx.hookimpl(lambda: [Lacking])))
    recipe = tiny_recipe(
        f"noise={{ratio: 0.2, mean: -6.0, dataset: {{name: lacking, path: {sounds / 'noise.csv'}}}}}",
        with_host=with_lacking,
    )
    assert make_trainer(recipe, with_host=with_lacking).run.missing == ("noise: half of it",)


@pytest.fixture
def with_bad_files(tmp_path: Path, make_wav: Any) -> str:
    """Overrides the data with a folder of which 3 of 10 files are bad."""
    for number in range(7):
        make_wav(f"data/{number}.wav", seed=number)
    (tmp_path / "data" / "text.wav").write_text("not audio")
    (tmp_path / "data" / "empty.wav").write_bytes(b"")
    make_wav("data/nothing.wav", seconds=0.0)
    return f"data.sets.notes={{split: null, dataset: {{name: folder, path: {tmp_path / 'data'}}}}}"


def test_bad_files_are_reported_once_and_training_goes_on(
    tiny_recipe: Any, make_trainer: Any, with_bad_files: str, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(with_bad_files, "data.max_bad_fraction=0.5", "data.workers=1")
    trainer = make_trainer(recipe)
    summary = trainer.fit()
    assert (summary.steps, summary.bad_files) == (10, 3)
    table = (trainer.run.folder / "bad_files.tsv").read_text().splitlines()
    assert table[0] == "path\treason" and len(table) == 4
    for name in ("text.wav", "empty.wav", "nothing.wav"):
        assert caplog.text.count(f"{name}:") == 1


def test_too_many_bad_files_stop_the_run(tiny_recipe: Any, make_trainer: Any, with_bad_files: str) -> None:
    trainer = make_trainer(tiny_recipe(with_bad_files, "data.max_bad_fraction=0.2"))
    with pytest.raises(TrainingError) as error:
        trainer.fit()
    assert "at most 20.0% of the 10 files may be unusable" in str(error.value)
    assert sum(name in str(error.value) for name in ("text.wav", "empty.wav", "nothing.wav")) == 3


def test_bad_files_found_while_measuring_count(
    tiny_recipe: Any, make_trainer: Any, with_bad_files: str
) -> None:
    recipe = tiny_recipe(with_bad_files, "data.max_bad_fraction=0.0", "data.mean=null", "data.std=null")
    trainer = make_trainer(recipe)
    assert trainer.step == 0 and len(trainer.run.bad) == 3
    with pytest.raises(TrainingError, match=r"0\.0% of the 10 files"):
        trainer.fit()
    assert trainer.step == 0


def test_known_bad_files_are_not_reported_again_after_a_resume(
    tiny_recipe: Any, make_trainer: Any, with_bad_files: str, caplog: pytest.LogCaptureFixture
) -> None:
    short = [with_bad_files, "data.max_bad_fraction=0.5", "train.epochs=2"]
    make_trainer(tiny_recipe(*short)).fit()
    caplog.clear()
    again = make_trainer(tiny_recipe(*short[:2], "train.epochs=3"), resume=True)
    assert len(again.bad_files) == 3
    assert again.fit().bad_files == 3
    assert "cannot use" not in caplog.text


@pytest.mark.slow
def test_compiled(tiny_recipe: Any, make_trainer: Any) -> None:
    plain = make_trainer(tiny_recipe("train.epochs=0.6", "name=plain"))
    compiled = make_trainer(tiny_recipe("train.epochs=0.6", "train.compile=true", "name=compiled"))
    plain.fit()
    compiled.fit()
    assert losses_of(compiled) == pytest.approx(losses_of(plain), abs=1e-4)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
