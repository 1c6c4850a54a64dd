"""Evaluation on labelled images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from m2dx.contract.errors import RecipeError, TrainingError
from m2dx.contract.host import PluginHost
from m2dx.data.datasets import ImageFolder
from m2dx.encoder.audio import random_encoder, random_like
from m2dx.encoder.images import ImageEncoder
from m2dx.evaluation.features import FeatureCache
from m2dx.evaluation.tasks import ClipTask
from m2dx.jobs.train import run_recipe
from m2dx.model.shapes import model_shapes
from m2dx.model.vit import Encoder
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.results.scoring import Scoring

STATISTICS = ["image.mean=[0.5,0.5,0.5]", "image.std=[0.3,0.3,0.3]"]


def evaluation(photos: Path, evaluator: str = "knn") -> str:
    dataset = f"{{name: image_folder, path: {photos}}}"
    return (
        f"evaluation={{tasks: {{photos: {{dataset: {dataset}}}}}, "
        f"evaluators: {{knn: {{name: {evaluator}}}, linear: {{name: linear, epochs: 20}}}}}}"
    )


def test_a_run_on_images_is_scored_beside_random_weights(
    image_recipe: Any, photos: Path, host: PluginHost, console: Console
) -> None:
    recipe = image_recipe(*STATISTICS, evaluation(photos), "name=scored")
    run_recipe(recipe, host, console)
    folder = recipe.output / "scored"
    scores = {
        (s["encoder"], s["protocol"]): s["mean"] for s in json.loads((folder / "scores.json").read_text())
    }
    assert scores.keys() == {(e, p) for e in ("pretrained", "random_weights") for p in ("knn", "linear")}
    assert all(score >= 0.75 for score in scores.values())  # two photographs are told apart by their colours
    records = [json.loads(line) for line in (recipe.output / "results.jsonl").read_text().splitlines()]
    assert len(records) == 4 and {record["clips"] for record in records} == {56}
    assert (folder / "report.html").exists()
    assert "m2dx encode" not in console.export_text()  # which is of audio


@pytest.fixture
def encoder(image_recipe: Any) -> ImageEncoder:
    """A network with random weights."""
    recipe = image_recipe(*STATISTICS)
    shapes = model_shapes(recipe.image, recipe.model)
    return random_like(ImageEncoder(Encoder(shapes.grid, shapes.size), recipe.image), seed=0)


def test_features_are_those_of_the_middle_of_each_image(encoder: ImageEncoder, photos: Path) -> None:
    task = ClipTask.from_dataset("photos", ImageFolder(path=photos))
    found = task.features(encoder, batch_size=5)
    assert found.x.shape == (56, 192)
    with torch.no_grad():
        for row in (0, 17, 55):
            one = encoder.clip(encoder.load(task.clips[row].path))[0]
            torch.testing.assert_close(found.x[row], one, atol=1e-5, rtol=1e-4)
    assert task.features(encoder) is found and task.unit_seconds is None
    (fold,) = task.folds
    assert (len(fold.train), len(fold.valid), len(fold.test)) == (32, 8, 16)


def test_features_of_images_are_kept_until_a_setting_of_the_encoder_changes(
    encoder: ImageEncoder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task() -> ClipTask:
        return ClipTask.from_dataset(
            "photos", ImageFolder(path=photos), cache=FeatureCache(tmp_path / "kept")
        )

    found = task().features(encoder)
    with monkeypatch.context() as context:
        context.setattr(ImageEncoder, "load", lambda self, path: pytest.fail(f"{path} was read again"))
        assert torch.equal(task().features(encoder).x, found.x)
    assert encoder.section.mean is not None
    changed = {"mean": tuple(m + 0.1 for m in encoder.section.mean)}
    encoder.section = encoder.section.model_copy(update=changed)
    assert not torch.allclose(task().features(encoder).x, found.x)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_images_that_cannot_be_read_are_left_out_up_to_a_limit(photos: Path, tmp_path: Path) -> None:
    for file in photos.rglob("*.*"):
        copy = tmp_path / file.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (tmp_path / "train" / "china" / "00.png").write_text("no image")
    task = ClipTask.from_dataset("photos", ImageFolder(path=tmp_path))
    assert len(task.clips) == 55
    assert [(bad.path.name, bad.reason[:26]) for bad in task.bad] == [
        ("00.png", "cannot be read as an image")
    ]
    with pytest.raises(TrainingError, match="at most 0% of its clips may be unusable, but 1 of 56 are"):
        ClipTask.from_dataset("photos", ImageFolder(path=tmp_path), max_bad_fraction=0.0)


def test_what_needs_audio_is_refused_before_training(
    image_recipe: Any, tiny_recipe: Any, photos: Path, host: PluginHost
) -> None:
    with pytest.raises(
        RecipeError, match=r"evaluation.evaluators.knn: finetune needs audio, but the recipe's input"
    ):
        Scoring.of(image_recipe(evaluation(photos, "finetune")), host)
    with pytest.raises(
        RecipeError, match=r"evaluation.tasks.photos: the input of the recipe is audio, but the data set"
    ):
        Scoring.of(tiny_recipe(evaluation(photos)), host)


def test_an_encoder_of_the_other_kind_is_refused(
    image_recipe: Any, encoder: ImageEncoder, photos: Path, host: PluginHost, console: Console, tmp_path: Path
) -> None:
    of_audio = random_encoder(
        AudioSection(crop_seconds=0.32), ModelSection(size="tiny", depth=1), mean=0.0, std=1.0, seed=0
    )
    with pytest.raises(RecipeError, match="must both be of images, or both of audio"):
        Scoring.of(image_recipe(evaluation(photos)), host).run(of_audio, console, tmp_path / "scores")
    with pytest.raises(RecipeError, match="images need an encoder of images"):
        ClipTask.from_dataset("photos", ImageFolder(path=photos)).features(of_audio)
