"""A run on images: trained, stopped, resumed exactly, exported, and used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import m2dx
from m2dx.contract.errors import CheckpointError, ImageError, RecipeError, TrainingError
from m2dx.contract.host import PluginHost
from m2dx.data.crops import collate
from m2dx.encoder.weights import export_encoder
from m2dx.jobs.check import check_recipe
from m2dx.jobs.train import make_trainer
from m2dx.training.distributed import Processes
from m2dx.training.prepare import PreparedRun, prepare
from m2dx.training.run_folder import start_run_folder
from m2dx.training.trainer import Trainer

CPU = Processes(0, 1, torch.device("cpu"))
STATISTICS = ["image.mean=[0.5,0.5,0.5]", "image.std=[0.3,0.3,0.3]"]
LABELS = (
    "tasks={labels: {offline_encoder: {name: labels}, online_mapper: {name: pool_linear}, "
    "loss: {name: cross_entropy}}}"
)


@pytest.fixture
def train(image_recipe: Any, host: PluginHost, console: Console) -> Any:
    """Trains to a step of 4; gives the trainer."""

    def run(*overrides: str, steps: int = 4, resume: bool = False) -> Trainer:
        trainer = make_trainer(image_recipe(*overrides), host, CPU, console, resume=resume)
        start_run_folder(trainer.recipe, resume=resume)
        trainer.total_steps = steps
        trainer.fit()
        return trainer

    return run


def test_a_run_goes_on_exactly_and_its_encoder_gives_features(
    train: Any, photos: Path, tmp_path: Path
) -> None:
    options = [LABELS, "data.workers=1"]
    whole = train(*options, "name=whole")
    train(*options, "name=parts", steps=2)
    parts = train(*options, "name=parts", resume=True)
    assert parts.step == 4
    weights = parts.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in whole.model.state_dict().items())
    assert parts.recipe.image.model_dump() == whole.recipe.image.model_dump()
    assert parts.recipe.image.mean is not None

    encoder = m2dx.load_image_encoder(export_encoder(parts.run.folder, tmp_path / "encoder"))
    assert (encoder.input_size, encoder.channels, encoder.embed_dim) == ((32, 32), 3, 192)
    files = [clip.path for clip in parts.run.clips][:3]
    images = torch.stack([encoder.load(file) for file in files])
    features = encoder(images)
    assert features.shape == (3, 4, 4, 192) and bool(features.isfinite().all())
    torch.testing.assert_close(encoder.clip(images), features.mean(dim=(1, 2)))
    torch.testing.assert_close(encoder.clip(images.float() / 255), encoder.clip(images))
    again = m2dx.load_image_encoder(parts.run.folder)
    torch.testing.assert_close(again.clip(images), encoder.clip(images))
    assert not torch.allclose(features[0], features[1]) and not features.requires_grad


def test_the_model_sees_standardised_crops(image_recipe: Any, host: PluginHost, console: Console) -> None:
    run = prepare(image_recipe("data.stats_clips=32"), host, CPU, console)
    assert "by channel over 32 images" in console.export_text()
    batch = [run.crops[key] for key in next(iter(run.batches()))]
    images = torch.stack([item.inputs for item in batch])
    assert images.shape == (8, 3, 32, 32) and images.dtype == torch.uint8
    section = run.recipe.image
    values = images.float() / 255
    assert (values.mean(dim=(0, 2, 3)) - torch.tensor(section.mean)).abs().max() < 0.2
    (noisy,), views = run.model.views(collate(batch))
    wanted = (values - torch.tensor(section.mean).view(3, 1, 1)) / torch.tensor(section.std).view(3, 1, 1)
    torch.testing.assert_close(noisy, wanted)
    assert noisy is views.clean_logmel and views.waveforms is None
    same = run.crops[next(iter(run.batches()))[0]]
    assert torch.equal(same.inputs, batch[0].inputs) and torch.equal(same.ids_shuffle, batch[0].ids_shuffle)


def test_statistics_are_those_of_the_pixels(
    image_recipe: Any, host: PluginHost, console: Console, tmp_path: Path
) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for number, value in enumerate((50, 150)):
        Image.new("RGB", (8, 8), (value, 2 * value - 50, 100 - value // 2)).save(folder / f"{number}.png")
    options = ["data.sets.photos.split=null", "data.epoch_size=8"]
    section = prepare(image_recipe(*options, path=folder), host, CPU, console).recipe.image
    assert section.mean == pytest.approx([100 / 255, 150 / 255, 50 / 255])
    assert section.std == pytest.approx([50 / 255, 100 / 255, 25 / 255])


@pytest.mark.parametrize("method", ["m2d", "msm_mae"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_reach_the_model(
    method: str, channels: int, image_recipe: Any, host: PluginHost, console: Console
) -> None:
    mean = "[" + ", ".join(["0.5"] * channels) + "]"
    options = [f"image.channels={channels}", f"image.mean={mean}", f"image.std={mean}"]
    recipe = image_recipe(
        *options, f"model.method={method}", "image.size=[16, 32]", "model.patch_size=[8, 4]"
    )
    run = prepare(recipe, host, CPU, console)
    losses = run.model(collate([run.crops[key] for key in next(iter(run.batches()))]))
    losses.total.backward()
    model = run.model.masked_model
    assert model.online.patch_embed.proj.weight.shape == (192, channels, 8, 4)
    assert model.online.patch_embed.proj.weight.grad.abs().sum(dim=(0, 2, 3)).min() > 0
    if method == "msm_mae":
        assert model.predictor.pred.out_features == channels * 8 * 4


def test_bad_images_are_replaced_and_counted(
    train: Any, image_recipe: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for number, file in enumerate(sorted((photos / "train").rglob("*.*"))):
        (folder / f"{number:02}{file.suffix}").write_bytes(file.read_bytes())
    (folder / "00.jpg").write_text("no image")
    text = str(folder)
    options = [*STATISTICS, "data.sets.photos.split=null", f"data.sets.photos.dataset.path={text}"]
    trainer = train(*options, "data.max_bad_fraction=0.1")
    assert len(trainer.bad_files) == 1
    assert "00.jpg\tcannot be read as an image" in (trainer.run.folder / "bad_files.tsv").read_text()
    with pytest.raises(TrainingError, match="may be unusable"):
        train(*options, "name=strict", "data.max_bad_fraction=0.01")
    for file in folder.iterdir():
        file.write_text("no image")
    with pytest.raises(
        ImageError, match=r"none of 100 clips in a row could be read; the last: .*cannot identify"
    ):
        train(*options, "name=none", "data.max_bad_fraction=1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["noise={ratio: 0.1, source: {name: coloured}}"], "noise must be left out with image"),
        (["audio.n_mels=64"], "audio must be left out where image is given"),
        (["data.mean=-7", "data.std=4"], "data.mean and data.std are those of log-mel"),
        (
            ["image.size=[30, 32]"],
            r"image.size must be a multiple of model.patch_size \(8 x 8\), but is 30 x 32",
        ),
        (
            ["image.mean=[0.5]", "image.std=[0.3]"],
            "mean must have a value for each of the 3 channels, but has 1",
        ),
        (["image.mean=[0.5,0.5,0.5]"], "mean and std must be given together"),
        (["image.crop_scale=[0.8,0.2]"], "crop_scale must be the least and the largest share"),
    ],
)
def test_what_images_cannot_have_is_refused(overrides: list[str], message: str, image_recipe: Any) -> None:
    with pytest.raises(RecipeError, match=message):
        image_recipe(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [LABELS.replace("labels}, online", "log_spectrum}, online")],
            "tasks.labels: the offline encoder log_spectrum needs waveforms, but the recipe's input is images",
        ),
        (
            ["data.sets.photos={dataset: {name: folder, path: .}}"],
            "data.sets.photos: the input of the recipe is images, but the data set folder lists audio",
        ),
        (["model.mask_ratio=0.99"], "leaves 0 visible"),
    ],
)
def test_what_needs_audio_is_refused(
    overrides: list[str], message: str, image_recipe: Any, host: PluginHost, console: Console
) -> None:
    with pytest.raises(RecipeError, match=message):
        prepare(image_recipe(*STATISTICS, *overrides), host, CPU, console)


def test_a_folder_of_images_is_no_audio(image_recipe: Any, host: PluginHost, console: Console) -> None:
    recipe = image_recipe("image=null", "model.patch_size=[16,16]")
    with pytest.raises(
        RecipeError, match="the input of the recipe is audio, but the data set image_folder lists images"
    ):
        prepare(recipe, host, CPU, console)


def test_check_prints_the_sizes_of_images(image_recipe: Any, host: PluginHost, console: Console) -> None:
    check_recipe(image_recipe(), host, console)
    text = console.export_text()
    assert "32 x 32, 3" in text and "4 x 4 = 16" in text and "log-mel" not in text


def test_encoders_of_images_and_of_audio_are_told_apart(
    train: Any, tiny_recipe: Any, host: PluginHost, console: Console
) -> None:
    folder = train(*STATISTICS, steps=1).run.folder
    with pytest.raises(CheckpointError, match=r"an encoder of images; m2dx.load_image_encoder loads it"):
        m2dx.load_encoder(folder)
    trainer = make_trainer(tiny_recipe("name=sounds"), host, CPU, console)
    start_run_folder(trainer.recipe, resume=False)
    trainer.save()
    with pytest.raises(CheckpointError, match=r"an encoder of audio; m2dx.load_encoder loads it"):
        m2dx.load_image_encoder(trainer.run.folder)


def test_further_training_starts_from_an_encoder_of_images(
    train: Any, image_recipe: Any, tiny_recipe: Any, host: PluginHost, console: Console, tmp_path: Path
) -> None:
    first = train(*STATISTICS, steps=1)
    encoder = export_encoder(first.run.folder, tmp_path / "encoder")

    def started(*more: str) -> PreparedRun:
        return prepare(
            image_recipe(*STATISTICS, f"init_from={encoder}", "name=more", *more), host, CPU, console
        )

    larger = started("image.size=[48, 64]")
    weights = first.model.masked_model.online.state_dict()
    for key, value in larger.model.masked_model.online.state_dict().items():
        assert key == "pos_embed" or torch.equal(value, weights[key])
    with pytest.raises(RecipeError, match="channels of the input must be 3 as in the file, but is 1"):
        started("image.channels=1", "image.mean=[0.5]", "image.std=[0.5]")


def test_what_an_image_encoder_cannot_take_is_refused(train: Any, tmp_path: Path) -> None:
    encoder = m2dx.load_image_encoder(train(*STATISTICS, steps=1).run.folder)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\) with \(3, 32, 32\), but are \(1, 3, 32, 40\)"):
        encoder(torch.zeros(1, 3, 32, 40))
    with pytest.raises(TypeError, match="uint8 or floating-point in"):
        encoder(torch.zeros(1, 3, 32, 32, dtype=torch.int64))
    with pytest.raises(ImageError, match=r"absent.png: missing: no such file"):
        encoder.load(tmp_path / "absent.png")
    Image.fromarray(np.zeros((5, 200), dtype=np.uint8)).save(tmp_path / "wide.png")
    assert encoder.clip(encoder.load(tmp_path / "wide.png")).shape == (1, 192)
