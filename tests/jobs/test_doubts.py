"""What makes it unlikely that a run learns: a warning for each, with the number that would do."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from m2dx.jobs.check import check_recipe
from m2dx.jobs.doubts import print_doubts
from m2dx.jobs.train import run_recipe
from m2dx.recipe.loading import load_recipe
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare

ROOT = Path(__file__).parents[2]
SOUND = "model.ema_decay={start: 0.5, end: 0.9}"
"""Of a target that follows within the ten steps of the tiny recipe."""
TONES = "data.sets.notes={{split: null, dataset: {{name: folder, path: {}}}}}"


@pytest.fixture
def doubts(tiny_recipe: Any, host: Any, console: Console) -> Any:
    def found(*overrides: str) -> list[str]:
        recipe = tiny_recipe(SOUND, *overrides)
        run = prepare(recipe, host, Processes(0, 1, torch.device("cpu")), Console(quiet=True))
        print_doubts(run, console)
        return [re.sub(r"^warning (\d+) of \1: ", "", line) for line in console.export_text().splitlines()]

    return found


def recording(folder: Path, seconds: float, scale: float) -> str:
    """The override that trains on 12 recordings of noise."""
    (folder / "tones").mkdir()
    for number in range(12):
        wav = np.random.default_rng(number).normal(scale=0.1 * scale, size=round(seconds * 16_000))
        soundfile.write(folder / "tones" / f"{number}.wav", wav.astype("float32"), 16_000, subtype="FLOAT")
    return TONES.format(folder / "tones")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ("", None),
        (
            "model.ema_decay={start: 0.99995, end: 0.99999} train.epochs=120",
            "model.ema_decay: after 600 steps the target network is still 98% its random start, and so is what the "
            "model learns to predict; model.ema_decay={start: 0.9872, end: 0.9974} would leave 1 %",
        ),
        (
            "model.ema_decay={start: 0.99995, end: 0.99999} train.epochs=0.6",
            "after 3 steps the target network is still 100% its random start, and so is what the model learns to "
            "predict; take more steps (train.epochs)",
        ),
        ("model.ema_decay={start: 0.99995, end: 0.99999} model.method=msm_mae", None),
        ("model.ema_decay={start: 0.9, end: 0.95}", "after 10 steps the target network is still 44% its random start"),
        ("model.ema_decay={start: 0.9, end: 0.92}", None),  # 39 %
        ("model.ema_decay={start: 0, end: 0}", None),
        (
            "train.base_lr=3e-4",
            "train.base_lr: its peak, base_lr x batch_size / 256, is 4.7e-06, with which little is learned; "
            "train.base_lr=0.064 would give 0.001",
        ),
        ("train.base_lr=1e-9", "is 1.6e-11, with which little is learned"),
        (
            "audio.n_mels=512",
            "audio.n_mels: 202 of 512 mel filters are empty, since they are narrower than the 40 Hz between the "
            "frequencies of the FFT; fewer, or audio.n_fft=1600 would do",
        ),
        ("audio.sample_rate=2000 audio.f_min=50", "mel filters are empty"),
        (
            "evaluation.every=100 evaluation.tasks={a: {dataset: {name: csv, path: x.csv}}} "
            "evaluation.evaluators={knn: knn}",
            "evaluation.every: nothing is scored on the way, since the training ends at step 10 and the first of these "
            "evaluations is at step 100; train.checkpoint_every=2 evaluation.every=2 would do",
        ),
        ("train.epochs=1e-9 train.warmup_epochs=0", "train.epochs: 1e-09 epochs are less than a step"),
        ("data.std=1e17", "mean -7 and std 1e+17, but those of samples in [-1, 1] have a mean of -16 to 5"),
        ("data.mean=13.8", "data.mean=null data.std=null measures them"),
    ],
)  # fmt: skip
def test_what_cannot_learn_is_told_with_what_would_do(overrides: str, told: str | None, doubts: Any) -> None:
    parts = re.findall(r"[\w.]+=(?:\{.*?\}+(?= |$)|\S+)", overrides)
    found = doubts(*parts)
    if told is None:
        assert found == []
    else:
        assert any(told in line for line in found), found


@pytest.mark.parametrize(
    ("seconds", "scale", "overrides", "told"),
    [
        (2.0, 1.0, ["audio.crop_seconds=1.6"], None),
        (2.0, 1.0, ["audio.crop_seconds=2.56"], None),  # 22 %
        (
            2.1,
            1.0,
            ["audio.crop_seconds=4"],
            "audio.crop_seconds: 47% of a crop of 4 s is padding on the average, since half of the clips are shorter "
            "than 2.1 s; audio.crop_seconds=2.08 or data.short_clips=repeat would do",
        ),
        (2.1, 1.0, ["audio.crop_seconds=4", "data.short_clips=repeat"], None),
        (
            0.32,
            1.0,
            ["model.depth=5"],
            "M weights are trained from random ones on 12 clips; 46 or more would do, a start (init_from), or "
            "model.size=tiny model.depth=4",
        ),
        (
            0.32,
            1.0,
            ["model.depth=2", "model.predictor={embed_dim: 192, depth: 1, num_heads: 3}"],
            "M weights are trained from random ones on 12 clips; 29 or more would do, or a start (init_from)",
        ),
        (0.64, 1.0, ["model.depth=2"], None),  # twice as many crops
        (
            0.5,
            32768.0,
            [],
            "data.sets: 12 of 12 clips that were looked at have samples far beyond [-1, 1], such as",
        ),
    ],
)
def test_lengths_and_samples_are_looked_at(
    seconds: float, scale: float, overrides: list[str], told: str | None, doubts: Any, tmp_path: Path
) -> None:
    found = doubts(recording(tmp_path, seconds, scale), *overrides)
    assert found == [] if told is None else len(found) == 1 and told in found[0], found


def test_the_headers_of_clips_are_read_once(
    doubts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("m2dx.data.reading.audio_seconds", lambda path: asked.append(path) or 0.5)
    doubts(recording(tmp_path, 0.5, 1.0))
    assert len(asked) == len(set(asked)) == 12


def test_check_and_train_tell_each_once_with_a_count(tiny_recipe: Any, host: Any) -> None:
    recipe = tiny_recipe("train.base_lr=3e-4", "train.epochs=0.6")
    for job in (check_recipe, run_recipe):
        console = Console(record=True, width=80, file=open("/dev/null", "w"))  # noqa: SIM115
        job(recipe, host, console)
        warnings = [line for line in console.export_text().splitlines() if line.startswith("warning")]
        assert [line.split(":")[:2] for line in warnings] == [
            ["warning 1 of 2", " model.ema_decay"],
            ["warning 2 of 2", " train.base_lr"],
        ]


SMALL = ["model.size=tiny", "model.depth=4", "model.predictor={embed_dim: 192, depth: 1, num_heads: 3}"]
"""Enough for the 388 clips that stand for the reader's."""


@pytest.mark.parametrize(
    ("page", "recipe", "overrides"),
    [
        ("recipes/quickstart.yaml", r"(.*)", ["noise.mean=-7"]),
        ("README.md", r"```yaml\n(.*?)```", [*SMALL, "noise.mean=-7"]),
        ("docs/start.md", r"<!-- recipe: birds.yaml -->\n```yaml\n(.*?)```", SMALL),
        ("docs/recipes.md", r"<!-- recipe: lungs.yaml -->\n```yaml\n(.*?)```", SMALL),
    ],
)
def test_what_the_project_trains_and_shows_first_is_not_warned_of(
    page: str, recipe: str, overrides: list[str], host: Any, console: Console, tmp_path: Path
) -> None:
    sounds = ROOT / "examples" / "sounds"
    found = re.search(recipe, (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    file = tmp_path / "recipe.yaml"
    text = (
        found[1].replace("../examples/sounds", str(sounds)).replace("lungs.csv", f"{sounds}/instrument.csv")
    )
    file.write_text(text.replace("path: recordings", f"path: {sounds}/sounds"), encoding="utf-8")
    few = [*overrides, "data.mean=-7", "data.std=4", "data.workers=0", "train.device=cpu"]
    run = prepare(load_recipe(file, few, host=host), host, Processes(0, 1, torch.device("cpu")), console)
    print_doubts(run, console)
    assert "warning" not in console.export_text()


def test_check_says_how_long_it_takes_and_from_what(tiny_recipe: Any, host: Any, console: Console) -> None:
    """And what each term's gradient is, where there are tasks."""
    check_recipe(tiny_recipe(SOUND, "tasks.labels.weight=auto", labels=True), host, console)
    row = r"labels │ [\d.]+ │ auto, [\d.e-]+ │ [\d.e-]+, 0\.5 x m2d"
    assert re.search(row, re.sub(" +", " ", console.export_text(clear=False)))
    assert re.search(
        r"the training takes about [\d.]+ s here: 10 steps of 4 clips, each [\d.]+ ms in a step on 4 on cpu, and "
        r"[\d.]+ ms to read \(0 workers\); one process, without the evaluation",
        " ".join(console.export_text().split()),
    )
