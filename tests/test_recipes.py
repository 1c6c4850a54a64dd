"""The recipes of the papers: their numbers, that each can be trained, and that the small ones are the same in small.

Data are generated, in the official layouts; the pre-trained weights that recipes start from are random.
"""

import io
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from m2dx_audioset.sample import write_audioset, write_fsd50k
from m2dx_hubert.sample import write_sample as write_librispeech
from m2dx_hubert.sample import write_weights as write_hubert
from m2dx_respiratory.evaluator import BEST
from m2dx_respiratory.sample import write_icbhi, write_sprsound
from PIL import Image
from rich.console import Console

from m2dx import check
from m2dx.encoder import load_any_encoder
from m2dx.export import export_encoder
from m2dx.model.patches import PatchGrid
from m2dx.model.published import published_names
from m2dx.model.vit import VIT_SIZES, Encoder
from m2dx.pipeline import run_recipe
from m2dx.plugins import PluginHost
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.recipe.schema import Recipe
from m2dx.results.published import load_table, paper_protocols, table_keys
from m2dx.scoring import Scoring

RECIPES = Path(__file__).parents[1] / "recipes"
PUBLISHED = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != "quickstart")
SMALL = sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.glob("small/*/*.yaml"))

BASICS = {
    "audio.sample_rate": 16_000,
    "audio.n_fft": 400,
    "audio.win_length": 400,
    "audio.hop_length": 160,
    "audio.n_mels": 80,
    "audio.f_min": 50,
    "audio.f_max": 8000,
    "model.method": "m2d",
    "model.size": "base",
    "model.depth": None,
    "model.predictor.embed_dim": 512,
    "model.predictor.depth": 8,
    "model.predictor.num_heads": 16,
    "model.ema_decay.start": 0.99995,
    "model.ema_decay.end": 0.99999,
    "model.target_input": "masked",
    "model.loss": "norm_mse",
    "model.weight": 1.0,
    "train.base_lr": 3e-4,
    "train.betas": (0.9, 0.95),
    "train.weight_decay": 0.05,
    "train.precision": "bf16",
    "data.short_clips": "pad",
}
"""IV-A, and what it takes from MAE."""
AUDIOSET = {
    **BASICS,
    "data.mean": -7.1,
    "data.std": 4.2,
    "data.sets.audioset.dataset.name": "audioset",
    "data.sets.audioset.dataset.train": "all",
    "data.sets.audioset.dataset.labels": False,
    "data.sets.audioset.split": "train",
    "data.sampling": "uniform",
    "data.epoch_size": None,
    "audio.crop_seconds": 6.08,
    "model.patch_size": (16, 16),
    "model.mask_ratio": 0.7,
    "noise": None,
    "train.epochs": 300,
    "train.warmup_epochs": 20,
    "train.batch_size": 2048,
    "train.accumulate": 1,
}
"""IV-B."""
SPEECH = {
    **BASICS,
    "data.mean": None,
    "data.std": None,
    "data.epoch_size": None,
    "data.sets.librispeech.dataset.name": "librispeech",
    "data.sets.librispeech.dataset.subsets": ("train-clean-100", "train-clean-360", "train-other-500"),
    "data.sets.librispeech.dataset.labels": "none",
    "data.sets.librispeech.split": None,
    "noise.ratio": 0.2,
    "noise.dataset.name": "audioset",
    "noise.dataset.train": "all",
    "noise.split": "train",
    "noise.mean": -7.1,
    "audio.crop_seconds": 2.08,
    "model.patch_size": (80, 4),
    "model.mask_ratio": 0.6,
    "train.epochs": 1000,
    "train.warmup_epochs": 60,
    "train.batch_size": 2048,
    "train.accumulate": 1,
}
"""IV-D."""
HUBERT = {
    "tasks.hubert.offline_encoder.name": "hubert",
    "tasks.hubert.offline_encoder.model": "hubert_base",
    "tasks.hubert.offline_encoder.layer": 9,
    "tasks.hubert.online_mapper.name": "linear",
    "tasks.hubert.loss.name": "norm_mse",
    "tasks.hubert.target_frames": "tokens",
    "tasks.hubert.weight": 0.5,
}
RESPIRATORY = {
    **BASICS,
    "data.mean": None,
    "data.std": None,
    "data.epoch_size": 10_000,
    "audio.crop_seconds": 2.0,
    "model.patch_size": (16, 4),
    "model.mask_ratio": 0.7,
    "train.epochs": 600,
    "train.warmup_epochs": 24,
    "train.batch_size": 128,
    "train.accumulate": 2,
    "train.checkpoint_every": 20 * (10_000 // 128),
    "train.keep_every": 100 * (10_000 // 128),
    "evaluation.evaluators.icbhi.name": "icbhi",
    "evaluation.evaluators.icbhi.batch_size": 64,
    "evaluation.evaluators.icbhi.accumulate": 4,
    "evaluation.evaluators.icbhi.schedule": "constant",
    "evaluation.evaluators.icbhi.weight_decay": 1e-4,
    "evaluation.evaluators.icbhi.freeze_patch_embed": True,
    "evaluation.evaluators.icbhi.mel_mask": 20,
    "evaluation.evaluators.icbhi.time_mask": 40,
    "evaluation.seeds": (0, 1, 2, 3, 4),
}
ICBHI = {
    **RESPIRATORY,
    "data.sets.icbhi.dataset.name": "icbhi",
    "data.sets.icbhi.dataset.unit": "recordings",
    "data.sets.icbhi.split": "train",
    "evaluation.tasks.icbhi.dataset.name": "icbhi",
    "evaluation.tasks.icbhi.dataset.unit": "cycles",
    "evaluation.tasks.icbhi.unit_seconds": 8,
    "evaluation.tasks.icbhi.shared_groups": "warn",
    "evaluation.tasks.icbhi.evaluators": None,
    "evaluation.evaluators.icbhi.epochs": 150,
    "evaluation.evaluators.icbhi.learning_rate": 5e-5,
    "evaluation.evaluators.icbhi.class_weights": True,
}
FSD50K: dict[str, Any] = {
    "noise.ratio": 0.3,
    "noise.dataset.name": "fsd50k",
    "noise.dataset.part": "dev",
    "noise.split": None,
    "noise.mean": None,
}
SPRSOUND = {
    **RESPIRATORY,
    **FSD50K,
    "data.sets.sprsound.dataset.name": "sprsound",
    "data.sets.sprsound.dataset.unit": "recordings",
    "data.sets.sprsound.split": "train",
    "noise.ratio": 0.01,
    "evaluation.tasks.sprsound.dataset.name": "sprsound",
    "evaluation.tasks.sprsound.dataset.unit": "events",
    "evaluation.tasks.sprsound.dataset.test": "inter",
    "evaluation.tasks.sprsound.dataset.labels": "types",
    "evaluation.tasks.sprsound.unit_seconds": 8,
    "evaluation.tasks.sprsound.shared_groups": "error",
    "evaluation.tasks.sprsound.evaluators": None,
    "evaluation.evaluators.icbhi.epochs": 50,
    "evaluation.evaluators.icbhi.learning_rate": 5e-6,
    "evaluation.evaluators.icbhi.class_weights": False,
}
TEACHER = {
    "tasks.teacher.offline_encoder.name": "m2d_teacher",
    "tasks.teacher.online_mapper.name": "linear",
    "tasks.teacher.loss.name": "norm_mse",
    "tasks.teacher.target_frames": "tokens",
    "tasks.teacher.weight": 1.0,
}
LABELS = {
    "data.sets.audioset.dataset.labels": True,
    "tasks.labels.offline_encoder.name": "audioset_labels",
    "tasks.labels.online_mapper.name": "pool_linear",
    "tasks.labels.loss.name": "bce",
    "tasks.labels.target_frames": "native",
    "tasks.labels.weight": 1.0,
}
NO_TASK: dict[str, Any] = {"tasks": {}}
IMAGENET: dict[str, Any] = {
    **{path: value for path, value in BASICS.items() if path.startswith(("model.", "train."))},
    "image.size": (224, 224),
    "image.channels": 3,
    "image.crop_scale": (0.2, 1.0),
    "image.flip": True,
    "data.sets.imagenet.dataset.name": "image_folder",
    "data.sets.imagenet.split": "train",
    "data.epoch_size": None,
    "model.patch_size": (16, 16),
    "model.mask_ratio": 0.75,
    "noise": None,
    "train.epochs": 300,
    "train.warmup_epochs": 40,
    "train.batch_size": 2048,
    "train.accumulate": 1,
    "train.base_lr": 1.5e-4,
    "train.clip_norm": None,
}
"""Appendix A, and MAE (He et al., 2022, table 8)."""
NO_NOISE: dict[str, Any] = {"noise": None}

PAPER: dict[str, dict[str, Any]] = {
    "m2d_audioset": {**AUDIOSET, **NO_TASK},
    "m2d_audioset_06": {**AUDIOSET, **NO_TASK, "model.mask_ratio": 0.6},
    "m2d_as": {**AUDIOSET, **LABELS},
    "m2d_audioset_16x4": {**AUDIOSET, **NO_TASK, "model.patch_size": (16, 4), "audio.crop_seconds": 2.0},
    "m2d_s_80x4": {**SPEECH, **NO_TASK},
    "m2d_s_80x4_hubert": {**SPEECH, **HUBERT, "tasks.hubert.weight": 1.0},
    "m2d_s_4s": {**SPEECH, **HUBERT, "model.patch_size": (80, 2), "audio.crop_seconds": 4.0},
    "m2d_s_5s": {
        **SPEECH,
        **HUBERT,
        "model.patch_size": (80, 2),
        "audio.crop_seconds": 5.12,
        "train.accumulate": 2,
    },
    "m2d_s_6s": {
        **SPEECH,
        **HUBERT,
        "model.patch_size": (80, 2),
        "audio.crop_seconds": 6.08,
        "train.accumulate": 2,
    },
    "icbhi_m2d": {**ICBHI, **NO_TASK, **FSD50K},
    "icbhi_m2d_x": {**ICBHI, **TEACHER, **FSD50K},
    "icbhi_m2d_no_noise": {**ICBHI, **NO_TASK, **NO_NOISE},
    "icbhi_m2d_x_no_noise": {**ICBHI, **TEACHER, **NO_NOISE},
    "sprsound_m2d": {**SPRSOUND, **NO_TASK},
    "sprsound_m2d_x": {**SPRSOUND, **TEACHER},
    "m2d_imagenet": {**IMAGENET, **NO_TASK},
}
IMAGES = "m2d_imagenet"
"""The recipe whose input is images."""
CLIPS_PER_GPU = {
    "m2d_audioset": (4, 512),
    "m2d_audioset_06": (4, 512),
    "m2d_as": (4, 512),
    "m2d_audioset_16x4": (4, 512),
    "m2d_s_4s": (4, 512),
    "m2d_s_5s": (4, 256),
    "m2d_s_6s": (4, 256),
    "icbhi_m2d": (1, 64),
    "icbhi_m2d_x": (1, 64),
}
"""GPUs and batch size of table XV."""
SCALE = re.compile(
    r"name|output|data\.(epoch_size|stats_clips|workers)"
    r"|model\.(size|depth|(predictor|ema_decay)\.\w+)"
    r"|train\.(epochs|warmup_epochs|batch_size|accumulate|base_lr|device|threads|checkpoint_every|keep_every)"
    r"|tasks\.hubert\.offline_encoder\.weights"
    r"|evaluation\.(seeds|baselines|evaluators\.icbhi\.(epochs|batch_size|accumulate))"
)
"""Fields that small versions may change."""

FULL_SIZE = ("m2d_as", "m2d_s_6s", "icbhi_m2d_x")
"""One of each kind is checked at full size in the usual run, the others by the slow tests."""


def write_base(path: Path, size: str, *, depth: int | None = None) -> Path:
    """A file like the published 16 x 4 model, encoder only, with random weights of 16 bits."""
    vit = VIT_SIZES[size] if depth is None else replace(VIT_SIZES[size], depth=depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(PatchGrid((80, 200), (16, 4)), vit)
    state = {name: tensor.half() for name, tensor in published_names(encoder.state_dict()).items()}
    path.parent.mkdir(parents=True)
    torch.save({"model": state}, path)
    return path


def write_images(folder: Path, *, images: int) -> Path:
    """Noise in two classes, as train and val; most of the training images are links."""
    random = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 4)):
        for number in range(count):
            path = folder / split / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < 8:
                Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
            else:
                path.symlink_to(f"{number % 8}.jpg")
    return folder


@pytest.fixture(scope="session")
def plugin_host() -> PluginHost:
    """The core and the plugins of this repository, installed or not."""
    import m2dx_audioset
    import m2dx_hubert
    import m2dx_respiratory
    import m2dx_teacher

    host = PluginHost.discover()
    installed = {record.name for record in host.records}
    for plugin in (m2dx_audioset, m2dx_hubert, m2dx_respiratory, m2dx_teacher):
        name = plugin.__name__.removeprefix("m2dx_")
        if name not in installed:
            host.register(name, plugin)
    return host


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data for every environment variable; enough clips for the published batches, most of them links."""
    folder = tmp_path_factory.mktemp("data")
    subsets = ("train-clean-100", "train-clean-360", "train-other-500")
    return {
        "AUDIOSET": write_audioset(folder / "audioset", clips=2064),
        "FSD50K": write_fsd50k(folder / "fsd50k", clips=24),
        "LIBRISPEECH": write_librispeech(folder, clips=688, subsets=subsets),
        "ICBHI": write_icbhi(folder / "icbhi", clips=6),
        "SPRSOUND": write_sprsound(folder / "sprsound", clips=8),
        "IMAGENET": write_images(folder / "imagenet", images=2064),
        "HUBERT": write_hubert(folder / "hubert.pt", layer=1),
        "M2D_16X4": write_base(folder / "shallow" / "checkpoint.pth", "base", depth=1),
    }


@pytest.fixture
def environment(generated: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the environment variables of recipes, some of them to other paths."""

    def set_all(**others: Path) -> None:
        for name, path in {**generated, **others}.items():
            monkeypatch.setenv(name, str(path))

    set_all()
    return set_all


@pytest.fixture
def load(environment: None, plugin_host: PluginHost, tmp_path: Path) -> Callable[..., Recipe]:
    """Loads a recipe by its name below recipes/, with overrides."""

    def loaded(name: str, *overrides: str) -> Recipe:
        return load_recipe(
            RECIPES / f"{name}.yaml", [f"output={tmp_path / 'runs'}", *overrides], host=plugin_host
        )

    return loaded


NAMED = ("data.sets.", "tasks.", "evaluation.tasks.", "evaluation.evaluators.")
"""Sections that have in a recipe what they have in PAPER, and nothing else."""


def field(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for key in path.split("."):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers(name: str, load: Callable[..., Recipe]) -> None:
    recipe = load(name)
    assert {path: field(recipe, path) for path in PAPER[name]} == PAPER[name]
    for section in NAMED:
        named = {path.removeprefix(section).split(".")[0] for path in PAPER[name] if path.startswith(section)}
        assert set(field(recipe, section.removesuffix("."))) == named


@pytest.mark.parametrize("name", PUBLISHED)
def test_respiratory_recipes_go_on_from_the_teachers_weights(
    name: str, load: Callable[..., Recipe], generated: dict[str, Path]
) -> None:
    recipe = load(name)
    go_on = name.startswith(("icbhi", "sprsound"))
    assert recipe.init_from == (generated["M2D_16X4"] if go_on else None)
    for task in recipe.tasks.values():
        if task.offline_encoder.name == "m2d_teacher":
            assert field(recipe, "tasks.teacher.offline_encoder.weights") == recipe.init_from


def test_the_settings_that_results_are_compared_by_are_those_of_the_recipes(
    load: Callable[..., Recipe],
) -> None:
    protocol = paper_protocols()["icbhi"]
    published = {**protocol.settings_for("icbhi"), **protocol.code_settings}
    options = field(load("icbhi_m2d"), "evaluation.evaluators.icbhi")
    assert {key: getattr(options, key) for key in published} == {
        key: yaml.safe_load(value) for key, value in published.items()
    }
    assert set(protocol.remarks) == {"", BEST.strip(" ()")}


@pytest.mark.parametrize("name", CLIPS_PER_GPU)
def test_the_batch_per_gpu_is_that_of_table_xv(name: str, load: Callable[..., Recipe]) -> None:
    gpus, clips = CLIPS_PER_GPU[name]
    train = load(name).train
    assert train.batch_size == gpus * clips * train.accumulate


def test_every_recipe_is_known_here_and_has_small_versions() -> None:
    assert sorted(PAPER) == PUBLISHED
    assert [f"small/{kind}/{name}" for kind in ("24gb", "cpu") for name in PUBLISHED] == SMALL


@pytest.mark.parametrize("name", SMALL)
def test_a_small_version_differs_in_scale_only(name: str, load: Callable[..., Recipe]) -> None:
    small, parent = (dict(leaves(recipe_to_mapping(load(n)))) for n in (name, Path(name).name))
    missing = object()
    changed = [key for key in small | parent if small.get(key, missing) != parent.get(key, missing)]
    assert "train.epochs" in changed
    assert [key for key in changed if not SCALE.fullmatch(key)] == []


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}" if path else key)
    else:
        yield path, value


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_first_lines_say_where_it_is_published_and_what_it_took(name: str) -> None:
    head = first_lines(name)
    assert re.search(r"M2D-X paper, (IV-[B-E]|appendix A)", head)
    assert re.search(r"[Tt]ables? [IVX]+|Fig\. \d", head)
    assert re.search(r"\d\d\.\d", head), "the published scores"
    assert re.search(r"A100 80 GB|24 GB GPU|the paper names no GPUs", head)
    assert re.search(r"\d+ h\b|Table XV has no row", head)


def first_lines(name: str) -> str:
    """A recipe's comment before its first setting."""
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line[:1] == "#", lines))


ROWS = {
    "m2d_audioset": (("m2d-x-iii", "M2D/0.7"), ("m2d-x-iv", "M2D/0.7")),
    "m2d_audioset_06": (("m2d-x-iii", "M2D/0.6"), ("m2d-x-iv", "M2D/0.6")),
    "m2d_as": (("m2d-x-v", "M2D-AS/0.7"), ("m2d-x-vi", "M2D-AS/0.7")),
    "m2d_audioset_16x4": (("m2d-x-xiii", "M2D/0.7 (16×4, T=2.0s)"),),
    "m2d_s_4s": (("m2d-x-x", "M2D-S/0.6 T=4.0s"),),
    "m2d_s_5s": (("m2d-x-x", "M2D-S/0.6 T=5.12s"),),
    "m2d_s_6s": (("m2d-x-x", "M2D-S/0.6 T=6.08s"),),
    "icbhi_m2d": (("m2d-x-xiii", "M2D/0.7 (η = 0.3)"),),
    "icbhi_m2d_x": (("m2d-x-xiii", "M2D-X/0.7 (η = 0.3)"),),
    "icbhi_m2d_no_noise": (("m2d-x-xiii", "M2D/0.7 (η = 0.0)"),),
    "icbhi_m2d_x_no_noise": (("m2d-x-xiii", "M2D-X/0.7 (η = 0.0)"),),
}
"""Rows of `m2dx results --table`; the scores of the other recipes are in tables that m2dx does not have."""
NINE = ("ESC-50", "US8K", "SPCV2", "VC1", "VF", "CRM-D", "GTZAN", "NSynth", "Surge")


def published_scores(name: str) -> dict[str, str]:
    """What a recipe's rows have, as printed: all scores, but of linear evaluation the average (else the mean) alone."""
    scores = {}
    for key, label in ROWS[name]:
        (row,) = [row for row in load_table(key).rows if row.label == label]
        if row.cells.keys() >= set(NINE):
            printed = row.cells.get("Avg.")
            mean = sum(row.cells[task].mean for task in NINE) / 9
            scores["mean" if printed is None else "average"] = f"{printed.mean if printed else mean:.1f}"
        else:
            cells = {column.split(" ")[0]: cell for column, cell in row.cells.items()}
            scores |= {column: f"{cell.mean:.{cell.decimals}f}" for column, cell in cells.items()}
    return scores


def written_scores(text: str) -> dict[str, str]:
    """Scores by task in text such as "average of 9 tasks 80.2; AS2M 47.9 and AS20K 38.6 mAP"."""
    text = re.sub(r"average of 9 tasks|linear evaluation(?= \d)", "average", text)
    text = text.replace("mean of the nine printed scores", "mean")
    found = re.findall(r"(average|mean|\b[A-Z][A-Za-z0-9-]*) (\d+\.\d+)", text)
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("name", ROWS)
def test_the_first_lines_have_the_published_scores(name: str) -> None:
    head = first_lines(name)
    assert written_scores(head) == published_scores(name)
    (tables,) = re.findall(r"Tables? ([IVX]+)(?: and ([IVX]+))?(?: \(i*\d?\))?, row", head)
    expected = [key.removeprefix("m2d-x-").upper() for key, _ in ROWS[name]]
    if name == "m2d_audioset_16x4":
        expected = ["XII"]  # the same numbers, in the table of the patches
    assert [table for table in tables if table] == expected


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - set(ROWS)))
def test_recipes_without_a_row_name_tables_that_m2dx_does_not_have(name: str) -> None:
    first = re.search(r"Tables? ([IVX]+)\b|Fig\. 6", first_lines(name))
    assert first and (first[1] or "").lower() not in {key.rpartition("-")[2] for key in table_keys()}


COMMANDS = [
    pytest.param(line.removeprefix("#").strip(), id=re.sub(r".*name=(\w+).*", r"\1", line))
    for path in sorted(RECIPES.rglob("*.yaml"))
    for line in path.read_text(encoding="utf-8").splitlines()
    if line.startswith("#   m2dx train ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_overrides_that_comments_name_are_valid(command: str, load: Callable[..., Recipe]) -> None:
    _, _, path, name, *overrides = shlex.split(command)
    recipe = load(str(Path(path).relative_to("recipes").with_suffix("")), name, *overrides)
    assert recipe.name == name.removeprefix("name=") and recipe.name not in PUBLISHED


def test_the_page_lists_every_recipe_with_its_link() -> None:
    page = (RECIPES / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page)
    assert [link for link in links if not link.startswith("https:") and not (RECIPES / link).exists()] == []
    assert {f"{name}.yaml" for name in [*PUBLISHED, "quickstart"]} <= set(links)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_says_of_each_recipe_what_its_first_lines_say(name: str) -> None:
    page, head = (RECIPES / "README.md").read_text(encoding="utf-8"), first_lines(name)
    (line,) = [line for line in page.splitlines() if line.startswith(f"| [{name}.yaml]")]
    *_, tables, _, machine, score = [cell.strip() for cell in line.strip("|").split("|")]
    own = [key.removeprefix("m2d-x-").upper() for key, _ in ROWS.get(name, ())]
    named = re.findall(r"[IVX]+|Fig\. \d", tables)
    assert named and all(table in own or re.search(rf"\b{table}\b", head) for table in named)
    if hours := re.search(r", (\d+)$", machine):
        gpus = machine.removesuffix(hours[0]).replace("1 x", "one")
        assert re.search(rf"Table XV.*{gpus}\b.* {hours[1]} h\b", head)
    else:
        assert machine.endswith("not given") and "Table XV has no row" in head
    numbers = re.findall(r"\d+\.\d+", score)
    assert numbers and set(numbers) <= set(re.findall(r"\d+\.\d+", head))
    assert written_scores(score).items() <= written_scores(head).items()
    assert len(written_scores(score)) == (0 if name.startswith("sprsound") else len(numbers))


def each_published(*, at_once: tuple[str, ...]) -> pytest.MarkDecorator:
    """A test for each published recipe; those that are not to run at once are slow tests."""
    names = [pytest.param(name, marks=[] if name in at_once else pytest.mark.slow) for name in PUBLISHED]
    return pytest.mark.parametrize("name", names)


def checked(recipe: Recipe, host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `m2dx check` prints of a recipe, from "shapes" on."""
    monkeypatch.setattr(check, "MOST_CLIPS", 2)
    monkeypatch.setattr(check, "MOST_STATS_CLIPS", 8)
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


@pytest.mark.parametrize("name", [*PUBLISHED, *SMALL])
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
    recipe = load(name, *shallow(name))
    text = checked(recipe, plugin_host, monkeypatch)
    losses = dict(re.findall(r"│ (\w+) +│ +(\S+) │", text.rpartition("losses of one step")[2]))
    assert losses.keys() == {"m2d", *recipe.tasks, "total"}
    assert all(0 < float(loss) < 10 for loss in losses.values())
    if recipe.data.epoch_size == 10_000:
        assert "46800 (78 per epoch)" in text


@each_published(at_once=FULL_SIZE)
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


TRAINED = ("m2d_as", "m2d_s_80x4_hubert", "icbhi_m2d_x", "sprsound_m2d")
"""One of each plugin is trained in the usual run, the others by the slow tests."""
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


@each_published(at_once=TRAINED)
def test_a_recipe_for_the_cpu_is_trained_resumed_exported_and_evaluated(
    name: str,
    environment: Callable[..., None],
    load: Callable[..., Recipe],
    plugin_host: PluginHost,
    console: Console,
    tmp_path: Path,
) -> None:
    overrides = [*QUICK]
    if name.startswith(("icbhi", "sprsound")):
        overrides += ["evaluation.evaluators.icbhi.epochs=1", "evaluation.baselines=[]"]
        start = load("small/cpu/m2d_audioset_16x4", *QUICK, "train.epochs=0.5")
        run_recipe(start, plugin_host, console, resume=False, overwrite=False)
        environment(M2D_16X4=start.output / start.name)
    elif name == IMAGES:
        overrides += IMAGES_TASK
    else:
        overrides += FSD50K_TASK
        if "hubert" in load(name).tasks:
            overrides.append("tasks.hubert.offline_encoder.layer=1")
    first = load(f"small/cpu/{name}", *overrides, "train.epochs=0.5")
    assert run_recipe(first, plugin_host, console, resume=False, overwrite=False).steps == 2
    recipe = load(f"small/cpu/{name}", *overrides, "train.epochs=0.75")
    summary = run_recipe(recipe, plugin_host, console, resume=True, overwrite=False)
    assert (summary.steps, summary.clips, summary.bad_files) == (3, 12, 0)
    assert all(f"loss_{task}" in summary.last_metrics for task in ("m2d", *recipe.tasks))
    run = recipe.output / recipe.name
    assert (run / "scores.json").is_file() and (run / "report.html").is_file()

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
    scores = Scoring.of(recipe, plugin_host).run(encoder, console, tmp_path / "scores")
    assert {score.score.task for score in scores} == set(recipe.evaluation.tasks)
