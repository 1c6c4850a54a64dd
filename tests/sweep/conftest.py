"""Sweeps of a tiny recipe, planned and not yet run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m2dx.contract.host import PluginHost
from m2dx.sweep.grid import parse_grid
from m2dx.sweep.points import Plan, plan_sweep

Planner = Callable[..., Plan]


@pytest.fixture
def plan(tiny_recipe: Any, tmp_path: Path, host: PluginHost) -> Planner:
    """Plans a sweep of the tiny recipe, with runs in `tmp_path / "runs"`."""
    tiny_recipe()  # writes tiny.yaml

    def make(*arguments: str, processes: int = 1) -> Plan:
        grid = parse_grid([f"output={tmp_path / 'runs'}", *arguments])
        return plan_sweep(tmp_path / "tiny.yaml", grid, host=host, processes=processes)

    return make
