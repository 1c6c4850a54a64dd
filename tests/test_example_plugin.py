"""The example plugin, installed by pip as any package: listed, trained with, and its own tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "m2dx-spectral"
TINY = """
data.epoch_size=8 data.workers=0 data.mean=-7 data.std=4 noise.mean=-7 audio.crop_seconds=0.64 model.depth=1
model.predictor.embed_dim=24 model.predictor.depth=1 model.predictor.num_heads=2 train.epochs=1 train.warmup_epochs=0
train.batch_size=4 train.device=cpu train.threads=1 train.log_every=1
""".split()
"""Two steps of a tiny model."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs Python with the plugin installed in a folder of its own, and gives what it prints."""
    site = tmp_path_factory.mktemp("site")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--target", str(site), str(PLUGIN)], check=True, capture_output=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("M2DX_", "PYTEST"))}
    environment |= {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "COLUMNS": "120", "OMP_NUM_THREADS": "1"}

    def run(*arguments: str, folder: Path) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_it_is_listed_with_its_package_and_components(run: Callable[..., str], tmp_path: Path) -> None:
    listed = run("-m", "m2dx", "plugins", folder=tmp_path)
    (line,) = [line for line in listed.splitlines() if "spectral" in line]
    assert "m2dx-spectral 0.1.0" in line
    assert "offline_encoder: cepstrum" in listed
    assert "online_mapper: frequency_pool" in listed
    assert "failed" not in listed


def test_its_recipe_trains(run: Callable[..., str], tmp_path: Path) -> None:
    run("-m", "m2dx", "train", str(PLUGIN / "recipe.yaml"), *TINY, folder=tmp_path)
    lines = (tmp_path / "runs" / "recipe" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert all(0 < json.loads(line)["loss_timbre"] < 4 for line in lines)
    config = json.loads((tmp_path / "runs" / "recipe" / "encoder" / "config.json").read_text())
    assert config["recipe"]["tasks"]["timbre"]["offline_encoder"]["num_coefficients"] == 20


def test_its_own_tests_pass(run: Callable[..., str], tmp_path: Path) -> None:
    tests = str(PLUGIN / "tests")
    passed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests, folder=tmp_path)
    assert "4 passed" in passed
