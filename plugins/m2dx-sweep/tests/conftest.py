"""Sweeps of a tiny recipe whose points are not run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from m2dx_sweep.grid import parse_grid
from m2dx_sweep.running import Point, points_of

from m2dx.contract.host import PluginHost

Planner = Callable[..., list[Point]]


@pytest.fixture
def plan(tiny_recipe: Any, tmp_path: Path, host: PluginHost) -> Planner:
    """The points of a grid of the tiny recipe, with runs in `tmp_path / "runs"`."""
    tiny_recipe()  # writes tiny.yaml

    def make(*arguments: str) -> list[Point]:
        grid = parse_grid([f"output={tmp_path / 'runs'}", *arguments])
        return points_of(tmp_path / "tiny.yaml", grid, host=host)

    return make
