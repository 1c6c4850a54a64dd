"""The example plugin, installed by pip as any package: listed, trained with, and its own tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "m2dx-spectral"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spectral")


@pytest.fixture(scope="module")
def listed(install: Callable[[Path], Callable[..., str]], two_steps: list[str], folder: Path) -> str:
    """What is printed where it is installed, by the list of plugins, a training and its own tests."""
    tests = str(PLUGIN / "tests")
    return install(PLUGIN)(
        ["m2dx", "plugins"],
        ["m2dx", "train", str(PLUGIN / "recipe.yaml"), *two_steps],
        ["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests],
        folder=folder,
    )


def test_it_is_listed_with_its_package_and_components(listed: str) -> None:
    (line,) = [line for line in listed.splitlines() if "m2dx-spectral 0.1.0" in line]
    assert "spectral" in line.partition("m2dx-spectral")[0]  # the plugin's name, before its package
    assert "offline_encoder: cepstrum" in listed
    assert "online_mapper: frequency_pool" in listed
    assert "failed" not in listed


def test_its_recipe_trains(listed: str, folder: Path) -> None:
    lines = (folder / "runs" / "recipe" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert all(0 < json.loads(line)["loss_timbre"] < 4 for line in lines)
    config = json.loads((folder / "runs" / "recipe" / "encoder" / "config.json").read_text())
    assert config["recipe"]["tasks"]["timbre"]["offline_encoder"]["num_coefficients"] == 20


def test_its_own_tests_pass(listed: str) -> None:
    assert "4 passed" in listed
