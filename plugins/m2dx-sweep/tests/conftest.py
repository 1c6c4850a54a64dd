"""A tiny recipe on the example recordings, and sweeps of it whose points are not run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from m2dx_sweep.grid import parse_grid
from m2dx_sweep.running import Point, points_of

import m2dx

Planner = Callable[..., list[Point]]
SOUNDS = Path(__file__).parents[3] / "examples" / "sounds"
TINY = f"""
output: runs
data:
  sets:
    notes: {{dataset: {{name: csv, path: {SOUNDS / "instrument.csv"}}}, split: train}}
  mean: -7.0
  std: 4.0
  epoch_size: 20
  workers: 0
audio: {{crop_seconds: 0.32}}
model: {{size: tiny, depth: 1, mask_ratio: 0.6, predictor: {{embed_dim: 24, depth: 1, num_heads: 2}}}}
train: {{epochs: 2, warmup_epochs: 0.5, batch_size: 4, base_lr: 0.05, device: cpu, threads: 1, log_every: 1}}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the tiny recipe, in the current folder."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def plan(tiny: Path, tmp_path: Path, host: m2dx.PluginHost) -> Planner:
    """The points of a grid of the tiny recipe, with runs in `tmp_path / "runs"`."""

    def make(*arguments: str) -> list[Point]:
        return points_of(tiny, parse_grid([f"output={tmp_path / 'runs'}", *arguments]), host=host)

    return make
