"""A run's folder for the tests of the page; a tiny MSM-MAE and M2D, each after three steps, and a sound for them."""

from pathlib import Path

import pytest
import torch
from m2dx_draw.reconstruction import load_reconstructor
from m2dx_draw.sounds import Sound
from report_pages import write_run
from rich.console import Console

from m2dx.contract.host import PluginHost
from m2dx.encoder.weights import export_encoder
from m2dx.recipe.loading import load_recipe
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare
from m2dx.training.run_folder import start_run_folder
from m2dx.training.trainer import Trainer

RECIPE = """
output: {output}
data:
  sets: {{notes: {{dataset: {{name: csv, path: {list}}}, split: train}}}}
  mean: -7.0
  std: 4.0
  epoch_size: 12
  short_clips: repeat
  workers: 0
audio: {{crop_seconds: 0.64}}
model:
  size: tiny
  depth: 2
  mask_ratio: 0.6
  predictor: {{embed_dim: 24, depth: 1, num_heads: 2}}
train: {{epochs: 1, warmup_epochs: 0.3, batch_size: 4, base_lr: 0.05, device: cpu, threads: 1, log_every: 1}}
"""
"""A grid of 5 x 4 patches of 16 x 16."""


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, sounds: Path, host: PluginHost) -> Path:
    """Folders `msm_mae` (with an export) and `m2d`, with a checkpoint of step 3."""
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.format(output=folder, list=sounds / "instrument.csv"), encoding="utf-8")
    for method in ("msm_mae", "m2d"):
        overrides = [f"name={method}", f"model.method={method}"]
        if method == "msm_mae":
            overrides.append("model.predictor={embed_dim: 24, depth: 1, num_heads: 2}")
        recipe = load_recipe(path, overrides, host=host)
        console = Console(file=(folder / f"{method}.log").open("w"))
        run = prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console)
        start_run_folder(run.recipe, resume=False)
        Trainer(run, console=console).fit()
        export_encoder(run.folder, run.folder / "encoder")
    return folder


@pytest.fixture
def model(runs: Path):
    """The MSM-MAE, loaded."""
    return load_reconstructor(runs / "msm_mae")


@pytest.fixture
def sound() -> Sound:
    """A rising tone of 0.64 s with some noise."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(10_240) / 16_000
    wav = 0.3 * torch.sin(2 * torch.pi * (300 + 1500 * t) * t)
    return Sound("rising", wav + 0.01 * torch.randn(len(t), generator=generator))


@pytest.fixture
def run(tmp_path):
    """A folder with all that a run leaves."""
    return write_run(tmp_path / "small-run")
