"""`m2dx plan`: the published settings come out as published, and the recipe is valid, also for `m2dx check`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from m2dx_plan.plan import (
    Proposal,
    Request,
    proposal_lines,
    propose,
    recipe_text,
    write_recipe,
)
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

import m2dx
from m2dx import cli
from m2dx.contract.errors import CheckpointError, RecipeError
from m2dx.contract.package import STARTER
from m2dx.encoder.weights import read_weights
from m2dx.jobs import core
from m2dx.jobs.check import check_recipe
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer


class Teacher(m2dx.OfflineEncoder):
    """Stands for the encoder of m2dx-teacher, which these tests do not need."""

    name = "m2d_teacher"
    embed_dim = 4

    def __init__(self, *, weights: Path) -> None:
        super().__init__()

    def forward(self, views: m2dx.Views) -> Tensor:
        return torch.zeros(len(views.clean_wav), 4)


class TeacherPlugin:
    @staticmethod
    @m2dx.hookimpl
    def offline_encoders() -> list[type]:
        return [Teacher]


@pytest.fixture(scope="module")
def with_teacher() -> m2dx.PluginHost:
    return m2dx.PluginHost({"m2dx": core, "teacher": TeacherPlugin})


@pytest.fixture
def load(tmp_path: Path, with_teacher: m2dx.PluginHost, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a plan's recipe and loads it, with its environment variables set."""
    for name in ("MY_AUDIO", "MY_LABELS", "MY_NOISE", "M2D_16X4"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def loaded(plan: Proposal) -> Recipe:
        path = tmp_path / "planned.yaml"
        write_recipe(plan, path, overwrite=True)
        return load_recipe(path, host=with_teacher)

    return loaded


@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        (2_005_132, ("from scratch", 2048, 300, 20)),
        (50_000_000, ("from scratch", 2048, 300, 20)),
        (281_241, ("from scratch", 2048, 1000, 60)),
        (281_000, ("from scratch", 2048, 1000, 60)),
        (60_000, ("from scratch", 2048, 1000, 60)),
        (50_000, ("further pre-training", 128, 600, 24)),
        (10_000, ("further pre-training", 128, 600, 24)),
        (539, ("further pre-training", 128, 600, 24)),
    ],
)
def test_the_nearest_published_setting_comes_out_as_published(
    clips: int, expected: tuple[Any, ...], load: Any
) -> None:
    plan = propose(Request(clips, 24))
    recipe = load(plan)
    train, ema = recipe.train, recipe.model.ema_decay
    assert (plan.strategy, train.batch_size, train.epochs, train.warmup_epochs) == expected
    assert train.accumulate == "auto"
    assert (train.base_lr, ema.start, ema.end, recipe.model.mask_ratio) == (3e-4, 0.99995, 0.99999, 0.7)


def test_small_sets_repeat_their_list_to_the_published_epoch(load: Any) -> None:
    assert load(propose(Request(700, 24))).data.epoch_size == 10_000
    assert load(propose(Request(20_000, 24))).data.epoch_size is None


def test_further_pre_training_has_start_teacher_and_noise(load: Any, tmp_path: Path) -> None:
    recipe = load(propose(Request(539, 24)))
    assert recipe.init_from == tmp_path / "M2D_16X4" == recipe.tasks["teacher"].offline_encoder.weights
    assert recipe.noise.ratio == 0.3
    assert (recipe.model.patch_size, recipe.audio.crop_seconds) == ((16, 4), 2.0)
    assert not recipe.evaluation.tasks


@pytest.mark.parametrize(("clips", "memory"), [(1, 24), (400, 80), (10_000, 0), (2_000_000, 0)])
def test_few_clips_or_no_gpu_give_features_only(clips: int, memory: float, load: Any) -> None:
    plan = propose(Request(clips, memory))
    assert plan.strategy == "features only"
    assert load(plan).evaluation.evaluators.keys() == {"logistic", "knn"}
    assert "Nothing is trained" in recipe_text(plan)


def test_features_only_needs_labels_and_no_folder_of_audio(
    with_teacher: m2dx.PluginHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_AUDIO", raising=False)
    monkeypatch.setenv("MY_LABELS", str(tmp_path / "labels.csv"))
    write_recipe(propose(Request(400, 24)), tmp_path / "planned.yaml", overwrite=False)
    recipe = load_recipe(tmp_path / "planned.yaml", host=with_teacher)
    assert recipe.data.sets["mine"].dataset.options()["path"] == tmp_path / "labels.csv"
    assert "MY_AUDIO" not in (tmp_path / "planned.yaml").read_text(encoding="utf-8")


def test_a_test_part_in_the_folder_of_audio_is_told() -> None:
    told = "where the test part of MY_LABELS lies in it, pre-training hears that, too"
    for clips in (5_000, 2_000_000):
        assert told in recipe_text(propose(Request(clips, 24, labels=True)))
        assert told not in recipe_text(propose(Request(clips, 24)))
    assert told not in recipe_text(propose(Request(100, 24, labels=True)))


def test_labels_are_a_task_from_scratch_and_an_evaluation_elsewhere(load: Any) -> None:
    scratch = load(propose(Request(2_000_000, 80, labels=True)))
    assert scratch.tasks["labels"].offline_encoder.dataset == "labelled"
    further = load(propose(Request(5_000, 24, labels=True)))
    assert further.tasks.keys() == {"teacher"}
    assert scratch.evaluation.tasks and further.evaluation.tasks


def test_own_weights_decide_input_and_size(tiny_recipe: Any, host: Any, console: Console, load: Any) -> None:
    source = tiny_recipe(
        "train.epochs=0.4", "train.warmup_epochs=0", "audio.f_min=20", "audio.sample_rate=32000"
    )
    run = prepare(source, host, Processes(0, 1, torch.device("cpu")), console)
    run.folder.mkdir(parents=True)
    Trainer(run, console=console).fit()
    plan = propose(Request(300_000, 8, weights=run.folder))
    assert plan.strategy == "further pre-training"
    recipe = load(plan)
    assert (recipe.model.size, recipe.model.depth, recipe.model.patch_size) == ("tiny", 1, (16, 16))
    assert recipe.audio.model_dump() == source.audio.model_dump()
    assert recipe.init_from == run.folder == recipe.tasks["teacher"].offline_encoder.weights


def test_the_starter_is_taken_by_its_name(tmp_path: Path) -> None:
    output, size = tmp_path / "mine.yaml", ["--clips", "2000", "--gpu-memory", "24"]
    for weights, code in (("starter", 0), (str(tmp_path / "starter"), 1)):
        told = CliRunner().invoke(
            cli.app, ["plan", *size, "--weights", weights, "-o", str(output), "--overwrite"]
        )
        assert told.exit_code == code, told.output
    text, depth = output.read_text(encoding="utf-8"), read_weights("starter").config.vit.depth
    assert text.count(str(STARTER)) == 2 and f"depth: {depth}" in text


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none: no such file"):
        propose(Request(1000, 24, weights=tmp_path / "none"))


@pytest.mark.parametrize(("seconds", "frames"), [(30.0, 200), (2.0, 200), (1.5, 148), (0.05, 8)])
def test_crops_are_no_longer_than_the_clips_but_two_patches_at_least(
    seconds: float, frames: int, load: Any
) -> None:
    plan = propose(Request(1000, 24, clip_seconds=seconds))
    assert load(plan).audio.crop_frames == frames
    assert ("two patches, the fewest" in plan.network.source) == (seconds == 0.05)


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8, 48, 1000])
def test_the_batch_fits_any_number_of_processes(processes: int, load: Any) -> None:
    plan = propose(Request(281_241, 24, processes=processes))
    train = load(plan).train
    assert train.batch_size % processes == 0 and 0 <= 2048 - train.batch_size < processes
    (reason,) = [reason for what, _, reason in proposal_lines(plan) if what == "batch size"]
    assert ("multiple of" in reason) == (train.batch_size != 2048)


@pytest.mark.parametrize(
    ("clips", "guess"),
    [(539, False), (2_683, False), (9_000, True), (20_000, True), (60_000, True), (281_241, False)],
)
def test_a_strategy_that_is_not_published_for_so_many_clips_is_called_a_guess(
    clips: int, guess: bool
) -> None:
    assert ("guess" in propose(Request(clips, 24)).reason) == guess


@pytest.mark.parametrize(
    ("clips", "hours"), [(539, "7 h on one"), (2_005_132, "55 h on 4 A100"), (281_241, "half the crops")]
)
def test_the_cost_is_that_of_the_published_run(clips: int, hours: str) -> None:
    (cost,) = [value for what, value, _ in proposal_lines(propose(Request(clips, 24))) if what == "cost"]
    assert cost.startswith(hours)


def test_a_written_recipe_passes_the_check_where_the_data_are(
    tmp_path: Path,
    sounds: Path,
    with_teacher: m2dx.PluginHost,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a smaller model, so that it takes seconds; what nothing is to be trained with passes as it is."""
    monkeypatch.setenv("MY_AUDIO", str(sounds))
    monkeypatch.setenv("MY_LABELS", str(sounds / "instrument.csv"))
    smaller = ["model.size=tiny", "model.depth=1", "data.workers=0", "train.device=cpu"]
    smaller.append("data.epoch_size=2048")  # the example recordings are fewer than were asked for
    features_only = ["data.workers=0", "train.device=cpu"]
    for clips, memory, seconds, overrides in ((300_000, 24, 1.0, smaller), (335, 0, None, features_only)):
        plan = propose(Request(clips, memory, clip_seconds=seconds, labels=True))
        write_recipe(plan, tmp_path / "planned.yaml", overwrite=True)
        recipe = load_recipe(tmp_path / "planned.yaml", overrides, host=with_teacher)
        check_recipe(recipe, with_teacher, console)
    text = console.export_text()
    assert text.count("losses of one step") == 2 and "warning" not in text.rpartition("losses of one step")[2]


def test_each_line_says_where_it_comes_from() -> None:
    for clips in (100, 1000, 30_000, 60_000, 1_000_000):
        for line in proposal_lines(propose(Request(clips, 24, labels=True))):
            assert all(line), line


def test_the_command_writes_a_recipe_once(tmp_path: Path) -> None:
    path = tmp_path / "planned.yaml"
    command = ["plan", "--clips", "539", "--gpu-memory", "24", "-o", str(path)]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert "further pre-training" in result.output and "published setting" in result.output
    assert path.read_text(encoding="utf-8") == recipe_text(propose(Request(539, 24)))
    path.write_text("mine", encoding="utf-8")
    refused = CliRunner().invoke(cli.app, command)
    assert isinstance(refused.exception, RecipeError) and "this one exists" in str(refused.exception)
    assert path.read_text(encoding="utf-8") == "mine"
    assert CliRunner().invoke(cli.app, [*command, "--overwrite"]).exit_code == 0
    assert "init_from" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--clips", "0", "--gpu-memory", "24"],
        ["--clips", "9", "--gpu-memory", "-1"],
        ["--clips", "9", "--gpu-memory", "24", "--processes", "0"],
        ["--clips", "9", "--gpu-memory", "24", "--clip-seconds", "-1"],
    ],
)
def test_wrong_numbers_on_the_command_line_are_wrong_use(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.app, ["plan", *arguments]).exit_code == 2


def test_planning_does_not_import_torch() -> None:
    program = (
        "import sys; from m2dx_plan.plan import Request, proposal_lines, propose, recipe_text\n"
        "plan = propose(Request(539, 24)); proposal_lines(plan); recipe_text(plan)\n"
        "assert not {'torch', 'pydantic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
