"""Each recipe passes `m2dx check`, and its version for the CPU trains on generated data."""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from m2dx_hubert.sample import write_weights as write_hubert
from m2dx_tasks.sample import write_sample
from msm_mae_expected import TABLE_1
from recipe_files import PUBLISHED, RECIPES, SMALL
from recipe_inputs import write_base
from rich.console import Console

from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import load_any_encoder
from m2dx.encoder.weights import export_encoder
from m2dx.jobs import check
from m2dx.jobs.train import run_recipe
from m2dx.recipe.schema import Recipe
from m2dx.results.scores import read_scores

FULL_SIZE = ("m2d_as", "msm_mae_512")
"""One of each method is checked at full size in the usual run, the others by the slow tests."""

IMAGES = "m2d_imagenet"
"""The recipe whose input is images."""

TRAINED = ("m2d_as", "m2d_s_80x4_hubert", "icbhi_m2d_x", "msm_mae_96")
"""One of each plugin and method is trained in the usual run; the others by the slow tests."""
ALIKE = {*TABLE_1, "m2d_s_4s", "m2d_s_5s"} - {*TRAINED}
"""Recipes that differ from one that is checked in their crops and patches only."""
CHECKED = [
    *(name for name in PUBLISHED if name not in ALIKE),
    *(f"small/24gb/{name}" for name in TRAINED),
]
"""What is checked in the usual run. test_recipes_numbers.py loads all, and compares small ones with the published."""
QUICK = (
    "data.epoch_size=16",
    "data.stats_clips=4",
    "data.workers=0",
    "model.depth=1",
    "model.predictor={embed_dim: 48, depth: 1, num_heads: 2}",
    "train.batch_size=4",
    "train.warmup_epochs=0.25",
    "train.log_every=1",
)
FSD50K_TASK = (
    "evaluation.tasks={fsd50k: {dataset: {name: fsd50k, path: '${FSD50K}'}, unit_seconds: 1}}",
    "evaluation.evaluators={knn: {name: knn}}",
    "evaluation.baselines=[]",
)

IMAGES_TASK = (
    "evaluation.tasks={images: {dataset: {name: image_folder, path: '${IMAGENET}', valid_is_test: true}}}",
    "evaluation.evaluators={knn: {name: knn}}",
    "evaluation.baselines=[]",
)


def each_recipe(names: list[str], *, at_once: Sequence[str]) -> pytest.MarkDecorator:
    """A test for each recipe; those that are not to run at once are slow tests."""
    slow = {name: [] if name in at_once else [pytest.mark.slow] for name in names}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, marks in slow.items()])


def checked(recipe: Recipe, host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `m2dx check` prints of a recipe, from "shapes" on, but the time."""
    monkeypatch.setattr(check, "MOST_CLIPS", 2)
    monkeypatch.setattr(check, "MOST_STATS_CLIPS", 8)
    monkeypatch.setattr(check, "_time_line", lambda *_: "")  # tests/jobs/test_doubts.py has it
    console = Console(record=True, width=200, file=io.StringIO())
    check.check_recipe(recipe, host, console)
    return console.export_text().rpartition("shapes\n")[2]


def shallow(recipe: str) -> list[str]:
    """Overrides for networks of one block: what may be wrong with a recipe is as wrong with these."""
    hubert = "hubert" in recipe or re.search(r"m2d_s_\ds", recipe)
    return [
        "model.depth=1",
        "model.predictor.depth=1",
        *(["tasks.hubert.offline_encoder.layer=1"] if hubert else []),
    ]


@pytest.mark.usefixtures("narrow_hubert")
@each_recipe([*PUBLISHED, *SMALL], at_once=CHECKED)
def test_each_recipe_passes_m2dx_check(
    name: str,
    environment: Callable[..., None],
    load: Callable[..., Recipe],
    plugin_host: PluginHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "/cpu/" in name:
        environment(M2D_16X4=write_base(tmp_path / "tiny" / "checkpoint.pth", "tiny", depth=1))
    recipe = load(name, *shallow(name), "data.workers=0")
    text = checked(recipe, plugin_host, monkeypatch)
    losses = dict(re.findall(r"│ (\w+) +│ +(\S+) │", text.rpartition("losses of one step")[2]))
    assert losses.keys() == {recipe.model.method.name, *recipe.tasks, "total"}
    assert all(0 < float(loss) < 10 for loss in losses.values())
    if recipe.data.epoch_size == 10_000:
        assert "46800 (78 per epoch)" in text


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("linear/fig_4", ["model.mask_ratio=0.5"]),
        ("icbhi_m2d_no_noise", ["name=icbhi_m2d_alone", "init_from=null"]),
        ("m2d_imagenet", ["name=mae_imagenet", "model.method={name: msm_mae, standardise_target: true}"]),
    ],
)
def test_commands_of_rows_without_a_recipe_pass_m2dx_check(
    name: str,
    overrides: list[str],
    load: Callable[..., Recipe],
    plugin_host: PluginHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Figure 4, table XII (2) and the row MAE of table XIV."""
    if name == "linear/fig_4":
        write_sample(tmp_path / "tasks", clips=60)
        part = (RECIPES / "linear" / "nine.yaml").read_text(encoding="utf-8")
        for dataset, variable in re.findall(r'name: (\w+), path: "\$\{(\w+)\}"', part):
            monkeypatch.setenv(variable, str(tmp_path / "tasks" / dataset))
    recipe = load(name, *overrides, "model.depth=1", "model.predictor.depth=1", "data.workers=0")
    text = checked(recipe, plugin_host, monkeypatch)
    assert re.search(rf"│ {recipe.model.method.name} +│ +\d+\.\d+ │", text)
    assert (
        len(recipe.evaluation.tasks) == {"linear/fig_4": 9, "icbhi_m2d_no_noise": 1, "m2d_imagenet": 0}[name]
    )


@each_recipe(PUBLISHED, at_once=FULL_SIZE)
def test_a_published_recipe_passes_m2dx_check_at_full_size(
    name: str,
    environment: Callable[..., None],
    load: Callable[..., Recipe],
    plugin_host: PluginHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files: dict[str, Path] = {}
    if name.startswith(("icbhi", "sprsound")):
        files["M2D_16X4"] = write_base(tmp_path / "base" / "checkpoint.pth", "base")
    elif name.startswith("m2d_s"):
        files["HUBERT"] = write_hubert(tmp_path / "hubert.pt")
    environment(**files)
    text = checked(load(name), plugin_host, monkeypatch)
    assert re.search(r"│ online +│ +8[56],\d{3},\d{3} │", text)  # 86M (table III)


@pytest.mark.usefixtures("narrow_hubert")
@each_recipe(PUBLISHED, at_once=TRAINED)
def test_a_recipe_for_the_cpu_is_trained_resumed_exported_and_evaluated(
    name: str,
    environment: Callable[..., None],
    load: Callable[..., Recipe],
    plugin_host: PluginHost,
    console: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overrides = [*QUICK]
    if name.startswith(("icbhi", "sprsound")):
        overrides += ["evaluation.evaluators.icbhi.epochs=1", "evaluation.baselines=[]"]
        environment(M2D_16X4=write_base(tmp_path / "tiny" / "checkpoint.pth", "tiny", depth=1))
    elif name == IMAGES:
        overrides += IMAGES_TASK
    else:
        overrides += FSD50K_TASK
        if "hubert" in load(name).tasks:
            overrides.append("tasks.hubert.offline_encoder.layer=1")
    first = load(f"small/cpu/{name}", *overrides, "train.epochs=0.5", "evaluation=null")
    with monkeypatch.context() as patch:
        patch.setattr("m2dx.jobs.train.write_page", lambda run: run.folder / "report.html")
        assert run_recipe(first, plugin_host, console, resume=False, overwrite=False).steps == 2
    recipe = load(f"small/cpu/{name}", *overrides, "train.epochs=0.75")
    summary = run_recipe(recipe, plugin_host, console, resume=True, overwrite=False)
    assert (summary.steps, summary.clips, summary.bad_files) == (3, 12, 0)
    assert all(f"loss_{task}" in summary.last_metrics for task in (recipe.model.method.name, *recipe.tasks))
    run = recipe.output / recipe.name
    assert {score.task for score in read_scores(run / "scores.json")} == set(recipe.evaluation.tasks)
    assert (run / "report.html").is_file()

    encoder = load_any_encoder(export_encoder(run, tmp_path / "exported"))
    generator = torch.Generator().manual_seed(0)
    if name == IMAGES:
        features = encoder(torch.rand(1, 3, 224, 224, generator=generator))
        assert features.shape == (1, 14, 14, 192)
    else:
        features = encoder(torch.randn(1, recipe.audio.crop_samples, generator=generator))
        patches = recipe.audio.n_mels // recipe.model.patch_size[0]
        assert features.shape == (1, recipe.audio.crop_frames // recipe.model.patch_size[1], patches * 192)
    assert features.isfinite().all()
