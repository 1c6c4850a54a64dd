"""What the tests of several plugins share: their host, the command line, and what a run leaves behind."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import m2dx
from m2dx.cli import app


@pytest.fixture(scope="session")
def make_host() -> Callable[[str], m2dx.PluginHost]:
    """Makes a host of the installed components, and those of a plugin of this repository where it is not installed."""

    def make(plugin: str) -> m2dx.PluginHost:
        host = m2dx.PluginHost.discover()
        if plugin not in [record.name for record in host.records]:
            host.register(plugin, import_module(f"m2dx_{plugin}"))
        return host

    return make


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command of m2dx with a host's components, and gives what it prints; errors are raised."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, host: m2dx.PluginHost) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(m2dx.PluginHost, "discover", lambda: host)
            result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture(scope="session")
def metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads the metrics of a run's folder, without what depends on the clock."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in ("time", "clips_per_second")} for line in lines]

    return read
