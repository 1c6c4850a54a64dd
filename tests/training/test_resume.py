"""A run that was stopped goes on as if it had not been."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

import m2dx
from m2dx.cli import app
from m2dx.contract.errors import CheckpointError, MemoryShortageError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.encoder import checkpoint
from m2dx.encoder.audio import load_encoder
from m2dx.model.mappers import PoolLinearMapper
from m2dx.model.views import DataStatistics
from m2dx.recipe.loading import recipe_to_yaml
from m2dx.training.distributed import Processes
from m2dx.training.run_folder import open_run_folder, start_run_folder
from m2dx.training.trainer import Trainer

STEPS = 12  # 5 per epoch


class DropoutMapper(PoolLinearMapper):
    """A mapper that draws from torch's own generator."""

    name = "dropout"

    def __init__(self, shapes: m2dx.TaskShapes) -> None:
        super().__init__(shapes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(self.dropout(tokens))


@pytest.fixture
def with_dropout() -> PluginHost:
    host = PluginHost.discover()
    host.register("dropout", SimpleNamespace(online_mappers=m2dx.hookimpl(lambda: [DropoutMapper])))
    return host


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Sends this process a signal when a step is done."""
    train_step = Trainer.train_step

    def stopping(self: Trainer, batches: Any) -> Any:
        result = train_step(self, batches)
        if self.step == step:
            signal.raise_signal(number)
        return result

    monkeypatch.setattr(Trainer, "train_step", stopping)


def assert_same(one: Trainer, other: Trainer) -> None:
    weights = other.model.state_dict()
    assert [
        key for key, value in one.model.state_dict().items() if not torch.equal(value, weights[key])
    ] == []
    moments = other.optimizer.state_dict()["state"]
    for index, state in one.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, moments[index][name]) for name, value in state.items())


SMALL_DATA = [
    "tasks.labels.weight=auto",
    "model.freeze_patch_embedding=true",
    "model.method={name: m2d, target_layers: mean, standardise_target: channel, loss: mse}",
]


@pytest.mark.parametrize(("number", "more"), [(signal.SIGTERM, []), (signal.SIGINT, SMALL_DATA)])
def test_a_stopped_run_goes_on_bit_by_bit(
    tiny_recipe: Any,
    make_trainer: Any,
    read_metrics: Any,
    with_dropout: PluginHost,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    more: list[str],
) -> None:
    """With workers, from the middle of an epoch and of a line of metrics, with noise, a task, and dropout."""
    options = [f"train.epochs={STEPS / 5}", "data.workers=2", "train.log_every=3", "train.rankme_every=3"]
    options += ["tasks.labels.online_mapper.name=dropout", *more]
    recipes = {
        name: tiny_recipe(*options, f"name={name}", labels=True, noise=True, with_host=with_dropout)
        for name in ("whole", "stopped")
    }
    whole = make_trainer(recipes["whole"], with_host=with_dropout)
    whole.fit()

    torch.rand(7)  # whatever else the process has drawn
    first = make_trainer(recipes["stopped"], with_host=with_dropout)
    with monkeypatch.context() as patch:
        stop_after(patch, 7, number)
        summary = first.fit()
    assert (summary.steps, summary.stopped_by) == (7, number.name)
    assert first.checkpoints.steps() == [7]

    torch.rand(3)
    second = make_trainer(recipes["stopped"], resume=True, with_host=with_dropout)
    assert second.step == 7
    summary = second.fit()
    assert (summary.steps, summary.stopped_by) == (STEPS, None)
    assert read_metrics(second.run.folder) == read_metrics(whole.run.folder)
    assert [line["step"] for line in read_metrics(second.run.folder)] == [3, 6, 9, 12]
    assert_same(whole, second)


def test_losses_depend_on_the_seed(tiny_recipe: Any, make_trainer: Any, read_metrics: Any) -> None:
    """So that the equality above says something."""
    folders = []
    for seed in (0, 1):
        trainer = make_trainer(tiny_recipe("train.epochs=0.6", f"seed={seed}", f"name=seed{seed}"))
        trainer.fit()
        folders.append(trainer.run.folder)
    assert read_metrics(folders[0]) != read_metrics(folders[1])


def test_metrics_after_the_checkpoint_are_dropped(
    tiny_recipe: Any, make_trainer: Any, read_metrics: Any
) -> None:
    recipe = tiny_recipe("train.checkpoint_every=3")
    trainer = make_trainer(recipe)
    trainer.fit()
    expected, path = read_metrics(trainer.run.folder), trainer.run.folder / "metrics.jsonl"
    for step in trainer.checkpoints.steps()[1:]:
        trainer.checkpoints.file(step).unlink()  # only step 9 of 10 is left
    with path.open("a") as file:
        file.write('{"step": 11, "loss')  # cut off by a crash
    again = make_trainer(recipe, resume=True)
    assert again.step == 9
    again.fit()
    assert read_metrics(trainer.run.folder) == expected
    assert_same(trainer, again)


def test_a_finished_run_is_left_as_it_is(tiny_recipe: Any, make_trainer: Any, read_metrics: Any) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    trainer = make_trainer(recipe)
    trainer.fit()
    before = read_metrics(trainer.run.folder)
    again = make_trainer(recipe, resume=True)
    assert again.fit().steps == 3
    assert read_metrics(trainer.run.folder) == before
    assert_same(trainer, again)


def test_statistics_survive_a_resume(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are measured once, and a resumed run does not take its own measure for a change."""
    options = ["train.epochs=0.6", "data.mean=null", "data.std=null", "noise.mean=null"]
    recipe = tiny_recipe(*options, noise=True)
    trainer = make_trainer(recipe)
    trainer.fit()
    measured = DataStatistics.of(trainer.run.recipe)
    assert measured.mean < 0 < measured.std and measured.noise_mean < 0
    assert trainer.model.views.statistics == measured

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("m2dx.training.prepare.measure_audio", refuse)
    monkeypatch.setattr("m2dx.training.prepare.measure_noise", refuse)
    again = make_trainer(recipe, resume=True)
    assert again.model.views.statistics == measured
    assert "has changed" not in caplog.text


@pytest.mark.parametrize(("there", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_the_precision_that_the_device_has_and_a_resume_keeps_it(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch, there: bool, chosen: str
) -> None:
    auto = tiny_recipe("train.precision=auto", "train.epochs=1")
    monkeypatch.setattr("m2dx.model.precision.has_bf16", lambda device: there)
    trainer = make_trainer(auto)
    assert trainer.recipe.train.precision == chosen
    trainer.step = 1
    trainer.save()
    monkeypatch.setattr("m2dx.model.precision.has_bf16", lambda device: not there)
    assert make_trainer(auto, resume=True).recipe.train.precision == chosen


def test_bf16_that_the_device_lacks_is_told(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for there, lines in ((True, 0), (False, 1)):
        monkeypatch.setattr("m2dx.training.prepare.has_bf16", lambda device, there=there: there)
        found = make_trainer(tiny_recipe("train.precision=bf16", f"name=there_{there}")).run.missing
        assert len(found) == lines and all("set train.precision=auto" in line for line in found)


def test_a_changed_recipe_is_told_and_followed(
    tiny_recipe: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(tiny_recipe("train.epochs=0.6")).fit()
    changed = tiny_recipe("train.epochs=1.2", "train.weight_decay=0.5", "train.betas=[0.5, 0.6]")
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(changed, resume=True)
    for text in ("train.epochs (0.6 -> 1.2)", "train.weight_decay (0.05 -> 0.5)", "train.betas"):
        assert text in caplog.text
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.5, 0.0]
    assert {group["betas"] for group in trainer.optimizer.param_groups} == {(0.5, 0.6)}
    assert trainer.fit().steps == 6


def test_a_field_that_is_new_in_m2dx_is_no_change(
    tiny_recipe: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A run of a version that had no such field; one that is given now is told."""
    recipe = tiny_recipe("train.epochs=0.6")
    trainer = make_trainer(recipe)
    trainer.fit()
    path = trainer.checkpoints.newest()
    state = checkpoint.read_checked(path)
    for field in ("sharding", "timeout_minutes"):
        del state["recipe"]["train"][field]
    checkpoint.write_atomically(path, state)
    open_run_folder(recipe, resume=True, overwrite=False)
    assert "has changed" not in caplog.text
    open_run_folder(tiny_recipe("train.epochs=0.6", "train.sharding=fsdp"), resume=True, overwrite=False)
    assert caplog.text.rstrip().endswith("has changed since this run started: train.sharding (none -> fsdp)")


WRONG = {
    "a list": lambda state: [state],
    "other format": lambda state: {**state, "format": "other", "model": 5},
    "newer version": lambda state: {**state, "version": 99},
    "step": lambda state: {**state, "step": -5},
    "step of text": lambda state: {**state, "step": "x"},
    "NaN": lambda state: {**state, "model": {n: t * torch.nan for n, t in state["model"].items()}},
    "model": lambda state: {**state, "model": {"a": 1}},
    "no mean": lambda state: {**state, "recipe": {**state["recipe"], "data": {}}},
    "empty recipe": lambda state: {**state, "recipe": {}},
    "no fingerprint": lambda state: {**state, "clips": {"count": 3}},
    "no seconds": lambda state: {**state, "totals": {"clips": 3}},
    **{
        f"no {name}": lambda state, name=name: {key: state[key] for key in state if key != name}
        for name in "recipe rng model optimizer label_names totals clips pending bad_files scaler step".split()
    },
    **{
        f"{name} of another type": lambda state, name=name: {**state, name: 5}
        for name in "recipe rng model optimizer label_names totals clips pending bad_files".split()
    },
}


def test_wrong_content_gives_way_to_the_checkpoint_before(
    tiny_recipe: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """In resuming; where encoders are read, it is one line that names the file."""
    recipe = tiny_recipe("train.checkpoint_every=2", "train.epochs=0.8")
    make_trainer(recipe).fit()
    folder = recipe.output / recipe.name / "checkpoints"
    newest = folder / "step-00000004.pt"
    newest.with_suffix(".encoder.safetensors").unlink()
    whole, unread = checkpoint.read_checked(newest), []
    for name, change in WRONG.items():
        torch.save(change(whole), newest)
        caplog.clear()
        found = open_run_folder(recipe, resume=True, overwrite=False)
        assert found is not None and found.path == folder / "step-00000002.pt", name
        (told,) = [r.getMessage() for r in caplog.records if "trying the one before it" in r.getMessage()]
        assert str(newest) in told and "\n" not in told
        try:
            load_encoder(newest)
        except CheckpointError as error:
            assert str(newest) in str(error) and "\n" not in str(error)
            unread.append(name)
    assert {"a list", "newer version", "step", "NaN", "no recipe", "no model", "no mean"} <= set(unread)


def test_memory_that_runs_out_while_a_checkpoint_is_loaded_is_not_its_fault(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    make_trainer(recipe).fit()

    def short(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")

    monkeypatch.setattr("m2dx.training.trainer.load_moments", short)
    with pytest.raises(
        MemoryShortageError, match=r"memory ran out during the start of training: 2\.50 GiB more"
    ):
        make_trainer(recipe, resume=True)


def test_another_model_does_not_fit(tiny_recipe: Any, make_trainer: Any) -> None:
    make_trainer(tiny_recipe("train.epochs=0.6")).fit()
    with pytest.raises(CheckpointError, match="does not fit the recipe"):
        make_trainer(tiny_recipe("train.epochs=0.6", "model.depth=2"), resume=True)


def test_nothing_to_resume_and_nothing_to_overwrite(tiny_recipe: Any, make_trainer: Any) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    with pytest.raises(RecipeError, match="has no checkpoint to resume from; train without --resume"):
        make_trainer(recipe, resume=True)
    trainer = make_trainer(recipe)
    trainer.fit()
    with pytest.raises(RecipeError, match=r"checkpoint of step 3: go on with --resume.*--overwrite"):
        make_trainer(recipe)
    assert open_run_folder(recipe, resume=False, overwrite=True) is None
    assert trainer.checkpoints.steps() == [3]  # nothing goes before the new run is ready
    for name in ("encoder/config.json", "encoder/model.safetensors", "scores.json", "summary.json"):
        (trainer.run.folder / name).parent.mkdir(exist_ok=True)
        (trainer.run.folder / name).touch()
    for step in trainer.checkpoints.steps():
        trainer.checkpoints.file(step).unlink()
    with pytest.raises(RecipeError, match=r"holds a run with an encoder: start anew with --overwrite"):
        make_trainer(recipe)


@pytest.mark.parametrize(
    ("name", "text", "refused"),
    [
        ("recipe.yaml", "# my notes\ndata: {sets: {}}\n", True),
        ("recipe.yaml", "no: [recipe", True),
        ("summary.json", "{}", True),
        ("recipe.yaml", None, False),  # as runs write it, of one that had no checkpoint yet
        ("notes.txt", "mine", False),
    ],
)
def test_files_of_others_are_not_written_over(
    name: str, text: str | None, refused: bool, tiny_recipe: Any, make_trainer: Any
) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    folder = recipe.output / recipe.name
    folder.mkdir(parents=True)
    (folder / name).write_text(recipe_to_yaml(recipe) if text is None else text)
    if refused:
        with pytest.raises(RecipeError, match=rf"has files that are not of a run, such as {name}"):
            make_trainer(recipe)
    else:
        make_trainer(recipe)


@pytest.mark.parametrize("field", ["init_from=", "evaluation.baselines=["])
def test_an_encoder_of_this_run_s_folder_is_no_start_and_no_baseline(
    field: str, tiny_recipe: Any, make_trainer: Any, tmp_path: Path
) -> None:
    own = tmp_path / "runs" / "tiny" / "encoder"
    recipe = tiny_recipe("train.epochs=0.6", f"{field}{own}{']' if '[' in field else ''}")
    with pytest.raises(RecipeError, match=r"is in the folder of this run, which would be overwritten"):
        make_trainer(recipe)


def test_resume_or_start_starts_and_goes_on(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a machine starts again does not know whether there is a checkpoint yet."""
    recipe = tiny_recipe("train.epochs=0.6", "train.checkpoint_every=2")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", lambda self: None)
        make_trainer(recipe, resume="or_start").fit()  # it ended before its first checkpoint
    trainer = make_trainer(recipe, resume="or_start")
    assert (trainer.step, trainer.resumed) == (0, False)
    trainer.fit()
    assert trainer.checkpoints.steps() == [2, 3]
    again = make_trainer(recipe, resume="or_start")
    assert (again.step, again.resumed) == (3, True)
    for step in again.checkpoints.steps():
        again.checkpoints.file(step).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):  # not a reason to begin anew
        make_trainer(recipe, resume="or_start")


@pytest.mark.parametrize("other", ["--resume", "--overwrite"])
def test_one_way_to_begin_at_a_time(other: str) -> None:
    result = CliRunner().invoke(app, ["train", "recipe.yaml", "--resume-or-begin", other])
    assert result.exit_code == 2
    assert "--overwrite exclude each other" in " ".join(result.output.replace("│", " ").split())


def test_a_fresh_start_removes_what_a_run_wrote_and_nothing_else(tiny_recipe: Any, make_trainer: Any) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    folder = make_trainer(recipe).run.folder
    files = ["metrics.jsonl", "summary.json", "scores.json", "report.html", "bad_files.tsv"]
    files += [
        "encoder/config.json",
        "encoder/model.safetensors",
        "tensorboard/events.out.tfevents.1.host.2.0",
    ]
    files += ["checkpoints/step-00000003.pt.damaged", "checkpoints/.step-00000003.pt.partial"]
    files += ["checkpoints/step-00000003.encoder.safetensors", "encoder/.config.json.partial"]
    own = ["notes.txt", "encoder/README.md", "evaluation/scores.json", "checkpoints/best.pt"]
    for name in (*files, *own):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("old")
    start_run_folder(recipe, resume=True, finished=True)
    assert all((folder / name).exists() for name in (*files, *own))
    start_run_folder(recipe, resume=True)  # what it scored is not what it will be
    assert {name for name in (*files, *own) if not (folder / name).exists()} == {"scores.json"}
    start_run_folder(recipe, resume=False)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {*own, "recipe.yaml"} and not (folder / "tensorboard").exists()


def test_the_summary_is_of_the_whole_run(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever it was resumed from: the middle, or its last step."""
    options = ["train.epochs=0.8", "train.log_every=2", "train.rankme_every=3"]
    monkeypatch.setattr("m2dx.training.trainer.rankme", lambda rows: 2.0)  # each one an alarm
    with monkeypatch.context() as patch:
        stop_after(patch, 3, signal.SIGTERM)  # between two lines of metrics, with a RankMe for the second
        first = make_trainer(tiny_recipe(*options)).fit()
    assert (first.steps, first.clips, first.collapse_warnings) == (3, 12, 1)
    kept = checkpoint.CheckpointFolder(tmp_path / "runs" / "tiny" / "checkpoints")
    saved_first = torch.load(kept.newest(), weights_only=False)["totals"]["seconds"]
    whole = make_trainer(tiny_recipe(*options), resume=True).fit()
    assert (whole.steps, whole.clips, whole.collapse_warnings) == (4, 16, 2)
    assert whole.seconds > saved_first > 0
    assert whole.last_metrics["step"] == 4 and whole.last_metrics["rankme"] == 2.0
    again = make_trainer(tiny_recipe(*options), resume=True).fit()
    assert again.seconds > torch.load(kept.newest(), weights_only=False)["totals"]["seconds"]
    ignored = {"seconds": 0.0}
    assert {**vars(again), **ignored} == {**vars(whole), **ignored}


def test_a_rankme_between_two_lines_survives_a_resume(
    tiny_recipe: Any, make_trainer: Any, read_metrics: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("train.epochs=0.8", "train.log_every=4", "train.rankme_every=2")
    with monkeypatch.context() as patch:
        patch.setattr("m2dx.training.trainer.rankme", lambda rows: 50.0)
        stop_after(patch, 3, signal.SIGTERM)
        make_trainer(recipe).fit()
    trainer = make_trainer(recipe, resume=True)
    assert trainer.watch.measured["rankme"] == 50.0
    trainer.fit()
    assert read_metrics(trainer.run.folder)[-1]["rankme"] != 50.0  # step 4 has its own


def test_a_run_that_is_past_its_end(tiny_recipe: Any, make_trainer: Any) -> None:
    make_trainer(tiny_recipe("train.epochs=0.8")).fit()
    with pytest.raises(RecipeError, match=r"checkpoint is of step 4, and train.epochs 0.6 ends at step 3"):
        make_trainer(tiny_recipe("train.epochs=0.6"), resume=True)


def test_a_checkpoint_is_read_once(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    make_trainer(recipe).fit()
    reads: list[Path] = []
    read = checkpoint.read_checked
    monkeypatch.setattr(checkpoint, "read_checked", lambda path: (reads.append(path), read(path))[1])
    make_trainer(recipe, resume=True)
    assert len(reads) == 1


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny_recipe: Any,
    make_trainer: Callable[..., Trainer],
    caplog: pytest.LogCaptureFixture,
    console: Console,
    tmp_path: Path,
) -> None:
    recipe = tiny_recipe("train.checkpoint_every=4", "train.keep_last=1", "train.keep_every=4")
    trainer = make_trainer(recipe)
    trainer.fit()
    assert trainer.checkpoints.steps() == [4, 8, 10]
    newest = trainer.checkpoints.file(10)
    newest.write_bytes(newest.read_bytes()[:-1000])
    again = make_trainer(recipe, resume=True)
    assert again.step == 8
    assert "step-00000010.pt" in caplog.text and "trying the one before it" in caplog.text
    assert "resuming from step 8" in console.export_text()
    again.fit()
    assert_same(trainer, again)


def test_what_a_gpu_has_drawn_goes_on_too(
    tiny_recipe: Callable[..., Any], make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU has a generator of its own, of dropout in a mapper; here one that is not there."""
    recipe, loaded = tiny_recipe("train.epochs=0.4", "train.warmup_epochs=0"), list[Tensor]()
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([1, 2], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", loaded.append)
    trainer, again = make_trainer(recipe), make_trainer(recipe)
    trainer.fit()
    on_cpu = trainer.state_dict()
    trainer.processes = again.processes = Processes(0, 1, torch.device("cuda"))
    again.load_state_dict(on_cpu)
    assert not loaded
    again.load_state_dict(trainer.state_dict())
    assert len(loaded) == 1 and loaded[0].tolist() == [1, 2]
