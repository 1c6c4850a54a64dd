"""The example plugin, installed by pip as any package: listed, trained with, and its own tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "m2dx-spectral"


@pytest.fixture(scope="module")
def run(install: Callable[[Path], Callable[..., str]]) -> Callable[..., str]:
    """Runs Python with the plugin installed, and gives what it prints."""
    return install(PLUGIN)


def test_it_is_listed_with_its_package_and_components(run: Callable[..., str], tmp_path: Path) -> None:
    listed = run("-m", "m2dx", "plugins", folder=tmp_path)
    (line,) = [line for line in listed.splitlines() if "spectral" in line]
    assert "m2dx-spectral 0.1.0" in line
    assert "offline_encoder: cepstrum" in listed
    assert "online_mapper: frequency_pool" in listed
    assert "failed" not in listed


def test_its_recipe_trains(run: Callable[..., str], two_steps: list[str], tmp_path: Path) -> None:
    run("-m", "m2dx", "train", str(PLUGIN / "recipe.yaml"), *two_steps, folder=tmp_path)
    lines = (tmp_path / "runs" / "recipe" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert all(0 < json.loads(line)["loss_timbre"] < 4 for line in lines)
    config = json.loads((tmp_path / "runs" / "recipe" / "encoder" / "config.json").read_text())
    assert config["recipe"]["tasks"]["timbre"]["offline_encoder"]["num_coefficients"] == 20


def test_its_own_tests_pass(run: Callable[..., str], tmp_path: Path) -> None:
    tests = str(PLUGIN / "tests")
    passed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests, folder=tmp_path)
    assert "4 passed" in passed
