"""Crops of two photographs as image files, and recipes of a tiny model on them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe

PARTS = {"train": 16, "val": 4, "test": 8}

TINY = """
image: {{size: [32, 32]}}
data:
  sets:
    photos: {{dataset: {{name: image_folder, path: "{path}"}}, split: train}}
  workers: 0
model:
  size: tiny
  depth: 1
  patch_size: [8, 8]
  mask_ratio: 0.75
  predictor: {{embed_dim: 24, depth: 1, num_heads: 2}}
train: {{epochs: 1, warmup_epochs: 0.5, batch_size: 8, base_lr: 0.05, device: cpu, threads: 1, log_every: 1}}
"""
"""4 steps an epoch, 16 patches an image."""


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with splits train, val, test and classes china, flower: crops of 48 x 40 pixels, PNG and JPEG."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        for part, count in PARTS.items():
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                y, x = random.integers(0, photo.shape[0] - 40), random.integers(0, photo.shape[1] - 48)
                crop = Image.fromarray(photo[y : y + 40, x : x + 48])
                crop.save(folder / part / name / f"{number:02}.{'jpg' if number % 2 else 'png'}")
    return folder


@pytest.fixture
def image_recipe(tmp_path: Path, photos: Path, host: PluginHost) -> Callable[..., Recipe]:
    """Makes a recipe on the photographs, or on another folder; positional arguments are overrides."""

    def make(*overrides: str, path: Path = photos) -> Recipe:
        file = tmp_path / "tiny.yaml"
        file.write_text(TINY.format(path=path), encoding="utf-8")
        return load_recipe(file, [f"output={tmp_path / 'runs'}", *overrides], host=host)

    return make
