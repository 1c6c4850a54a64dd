"""What several parts of the tests share: the host, small recipes on the example recordings, the parity data."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from torch import Tensor

from m2dx.contract.components import Mask, PatchGrid, ViTSize
from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe

ROOT = Path(__file__).parents[1]
SOUNDS = ROOT / "examples" / "sounds"
PARITY = Path(__file__).parent / "data" / "parity"

TINY = f"""
output: runs
data:
  sets:
    notes: {{dataset: {{name: csv, path: {SOUNDS / "instrument.csv"}}}, split: train}}
  mean: -7.0
  std: 4.0
  epoch_size: 20
  stats_clips: 16
  workers: 0
audio: {{crop_seconds: 0.32}}
model:
  size: tiny
  depth: 1
  patch_size: [16, 16]
  mask_ratio: 0.6
  predictor: {{embed_dim: 24, depth: 1, num_heads: 2}}
  ema_decay: {{start: 0.99, end: 0.999}}
train:
  epochs: 2
  warmup_epochs: 0.5
  batch_size: 4
  base_lr: 0.05
  device: cpu
  threads: 1
  log_every: 1
  checkpoint_every: 100
"""
"""5 steps an epoch, 10 patches a clip."""

LABELS = (
    "tasks={labels: {offline_encoder: {name: labels}, online_mapper: {name: pool_linear}, "
    "loss: {name: cross_entropy}, weight: 0.5}}"
)
TWO_STEPS = """
data.epoch_size=8 data.workers=0 data.mean=-7 data.std=4 noise.mean=-7 audio.crop_seconds=0.64 model.depth=1
model.predictor.embed_dim=24 model.predictor.depth=1 model.predictor.num_heads=2 train.epochs=1 train.warmup_epochs=0
train.batch_size=4 train.device=cpu train.threads=1 train.log_every=1
"""
NOISE = f"noise={{ratio: 0.2, mean: -6.0, dataset: {{name: csv, path: {SOUNDS / 'noise.csv'}}}}}"


@pytest.fixture(scope="session")
def sounds() -> Path:
    """The example recordings."""
    return SOUNDS


@pytest.fixture
def few_notes(sounds: Path, tmp_path: Path) -> Path:
    """A list of 60 notes: 10 of each split and of two instruments."""
    lines = (sounds / "instrument.csv").read_text().splitlines()
    kept = [lines[0]]
    for split in ("train", "valid", "test"):
        for label in ("bass", "flute"):
            kept += [f"{sounds}/{line}" for line in lines[1:] if f",{label},{split}," in line][:10]
    path = tmp_path / "few.csv"
    path.write_text("\n".join(kept) + "\n")
    return path


@pytest.fixture
def tiny_recipe(tmp_path: Path, host: PluginHost) -> Callable[..., Recipe]:
    """Makes a recipe of a tiny model on the example recordings; positional arguments are overrides.

    `labels` and `noise` add a task and background noise; runs go to `tmp_path / "runs"`.
    """
    path = tmp_path / "tiny.yaml"

    def make(
        *overrides: str, labels: bool = False, noise: bool = False, with_host: PluginHost = host
    ) -> Recipe:
        path.write_text(TINY, encoding="utf-8")
        given = [f"output={tmp_path / 'runs'}", *([LABELS] if labels else []), *([NOISE] if noise else [])]
        return load_recipe(path, [*given, *overrides], host=with_host)

    return make


@pytest.fixture
def make_wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a wav file of noise and gives its path."""

    def make(name: str = "noise.wav", *, seconds: float = 0.5, rate: int = 16_000, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wav = np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * rate))
        soundfile.write(path, wav, rate)
        return path

    return make


@dataclass(frozen=True)
class ParityCase:
    """Numbers and weights of the published implementation."""

    folder: Path
    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    def weights(self, name: str = "m2d_weights") -> dict[str, Tensor]:
        """A file of weights under the published names."""
        return load_file(self.folder / f"{name}.safetensors")

    @property
    def grid(self) -> PatchGrid:
        return PatchGrid(tuple(self.meta["input_size"]), tuple(self.meta["patch_size"]))

    @property
    def size(self) -> ViTSize:
        return ViTSize(self.meta["embed_dim"], self.meta["depth"], self.meta["num_heads"])

    @property
    def predictor(self) -> ViTSize:
        meta = self.meta
        return ViTSize(meta["predictor_dim"], meta["predictor_depth"], meta["predictor_heads"])

    @property
    def mask(self) -> Mask:
        return Mask(self.tensors["ids_shuffle"], self.meta["num_visible"])


@pytest.fixture(scope="session", params=["patch16x16", "strip80x4"])
def parity(request: pytest.FixtureRequest) -> ParityCase:
    """Each of the two cases."""
    folder = PARITY / request.param
    meta = json.loads((folder / "meta.json").read_text())
    return ParityCase(folder, meta, load_file(folder / "tensors.safetensors"))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def two_steps() -> list[str]:
    """Overrides that make two steps of a tiny model of any recipe."""
    return TWO_STEPS.split()


@pytest.fixture(scope="session")
def run_apart() -> Callable[..., str]:
    """Runs a command in a folder and gives what it prints; it knows nothing of the settings of this process."""

    def run(command: list[str], folder: Path, **environment: str) -> str:
        settings = ("M2DX_", "PYTEST", "PYTHON", "VIRTUAL_ENV")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(settings)}
        done = subprocess.run(
            command,
            cwd=folder,
            env=kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


RUN_MODULES = """
import json, runpy, sys
for module, *arguments in json.loads(sys.argv[1]):
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="session")
def install(
    run_apart: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Callable[..., str]]:
    """Installs a package in a folder of its own, and gives what runs modules with it, in one process."""

    def installed(package: Path) -> Callable[..., str]:
        site = tmp_path_factory.mktemp("site")
        options = "--quiet --no-deps --no-index --no-build-isolation --target".split()
        pip = [sys.executable, "-m", "pip", "install", *options, str(site), str(package)]
        subprocess.run(pip, check=True, capture_output=True)
        paths = f"{site}{os.pathsep}{ROOT}"

        def python(*commands: list[str], folder: Path, **environment: str) -> str:
            run = [sys.executable, "-c", RUN_MODULES, json.dumps(commands)]
            return run_apart(run, folder, PYTHONPATH=paths, **environment)

        return python

    return installed


IMAGE_PARTS = {"train": 16, "val": 4, "test": 8}

TINY_IMAGES = """
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
        for part, count in IMAGE_PARTS.items():
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
        file.write_text(TINY_IMAGES.format(path=path), encoding="utf-8")
        return load_recipe(file, [f"output={tmp_path / 'runs'}", *overrides], host=host)

    return make
