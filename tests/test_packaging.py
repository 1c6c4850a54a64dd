"""The package as others get it: declared dependencies, pins, and what the wheel and the sdist hold."""

import ast
import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import types
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import m2dx

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLLOW_TORCH = ("nvidia-", "cuda-", "triton")  # pinned by torch itself, by platform
PIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][A-Za-z0-9.]*")
STARTER = "m2dx/encoder/starter"
MOST_BYTES = 26_000_000  # with the weights of the starter
OFFLINE = """
import socket, sys

def refused(*arguments):
    raise OSError("no network")

socket.socket.connect = socket.create_connection = refused
import m2dx, torch

encoder = m2dx.load_encoder("starter")
print(encoder.clip(torch.zeros(2, 16000)).shape[1] == encoder.embed_dim, m2dx.__file__)
"""
TINY_RECIPE = """
output: runs
data: {sets: {tones: {dataset: {name: folder, path: tones}}}, workers: 0}
audio: {crop_seconds: 0.32}
model: {size: tiny, depth: 1, patch_size: [80, 4], predictor: {embed_dim: 32, depth: 1, num_heads: 2}}
train: {epochs: 2, warmup_epochs: 0, batch_size: 4, device: cpu, threads: 1}
"""


def declared(extra: str | None = None) -> list[Requirement]:
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def closure(requirements: list[Requirement]) -> set[str]:
    """Names of all installed packages that the requirements lead to on this platform."""
    found: set[tuple[str, frozenset[str]]] = set()
    todo = list(requirements)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in found or name == PROJECT["name"] or name.startswith(FOLLOW_TORCH):
            continue
        found.add(key)
        for needed in map(Requirement, importlib.metadata.requires(name) or []):
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return {name for name, _ in found}


def top_level_imports(source: Path) -> Iterator[tuple[str, bool]]:
    """(package, at module level) of each absolute import of a file."""
    tree = ast.parse(source.read_text())
    at_module_level = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in names:
            yield name.split(".")[0], id(node) in at_module_level


def test_constraints_are_sorted_names_with_exact_versions() -> None:
    assert [line for line in pins() if not PIN.fullmatch(line)] == []
    names = [line.split("==")[0] for line in pins()]
    assert names == sorted(set(names))


def test_constraints_pin_all_that_is_needed() -> None:
    needed = closure(declared() + declared("parquet") + declared("dev"))
    assert needed >= {"torch", "pyarrow", "pytest", "pydantic-core"}
    assert needed - {line.split("==")[0] for line in pins()} == set()


def test_the_pins_satisfy_the_declared_ranges() -> None:
    versions = dict(line.split("==") for line in pins())
    for requirement in declared() + declared("parquet") + declared("dev"):
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"]:
            assert requirement.specifier.contains(versions[name]), requirement


def test_the_pins_install_on_the_first_python_that_is_promised() -> None:
    """Debian 12 has 3.11.2; pip refuses all where one package asks for more."""
    first = PROJECT["requires-python"].removeprefix(">=") + ".0"
    asked = {}
    for line in pins():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of another platform
            name, version = line.split("==")
            found = importlib.metadata.distribution(name)
            asked[name] = found.metadata["Requires-Python"] if found.version == version else None
    assert len(asked) > 50
    assert {name: of for name, of in asked.items() if of and first not in SpecifierSet(of)} == {}


def test_what_ci_and_hooks_run_is_what_pyproject_says() -> None:
    (ruff,) = [line.split("==")[1] for line in pins() if line.startswith("ruff==")]
    assert f"rev: v{ruff} #" in (ROOT / ".pre-commit-config.yaml").read_text()
    tested = re.search(r"python-version: \[(.*?)\]", (ROOT / ".github/workflows/test.yml").read_text())
    assert tested is not None
    versions = [line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if " :: Python :: 3." in line]
    assert tested[1] == ", ".join(f'"{version}"' for version in versions)
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert f"version: {PROJECT['version']}" in (ROOT / "CITATION.cff").read_text()


def test_every_import_of_the_core_is_a_declared_dependency() -> None:
    distributions = importlib.metadata.packages_distributions()
    core = {canonicalize_name(requirement.name) for requirement in declared()}
    core.add("pydantic-core")  # pydantic fixes its version and documents some of its names
    optional = {canonicalize_name(requirement.name) for requirement in declared("parquet")}
    undeclared = []
    for source in (ROOT / "m2dx").rglob("*.py"):
        for package, at_module_level in top_level_imports(source):
            if package == PROJECT["name"] or package in sys.stdlib_module_names:
                continue
            owners = {canonicalize_name(name) for name in distributions.get(package, [])}
            if not owners & (core if at_module_level else core | optional):
                undeclared.append(f"{source.relative_to(ROOT)}: {package}")
    assert undeclared == []


def test_the_changelog_and_the_readme_name_the_version() -> None:
    for page in ("CHANGELOG.md", "README.md"):
        assert PROJECT["version"] in (ROOT / page).read_text()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def code_block(page: str, language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block


def test_the_recipe_of_the_readme_is_valid(tmp_path: Path) -> None:
    (tmp_path / "lungs.yaml").write_text(code_block("README.md", "yaml", "lungs.csv"))
    recipe = m2dx.load_recipe(tmp_path / "lungs.yaml", host=m2dx.PluginHost.discover())
    assert recipe.name == "lungs"
    assert recipe.tasks["diagnosis"].weight == 0.5


def test_the_plugin_of_the_readme_works() -> None:
    plugin = types.ModuleType("m2dx_l1")
    exec(code_block("README.md", "python", "hookimpl"), plugin.__dict__)
    host = m2dx.PluginHost({"l1": plugin})
    loss = host.component("loss", "l1")()
    assert loss(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])).item() == 1.5


def starter_files() -> set[str]:
    """What lies beside the weights of the starter, relative to the root."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / STARTER).rglob("*") if path.is_file()}
    assert {f"{STARTER}/{name}" for name in ("model.safetensors", "config.json", "README.md")} <= files
    return files


def test_the_starter_is_among_the_files_of_wheel_and_sdist() -> None:
    for builder in (WheelBuilder, SdistBuilder):
        included = {file.distribution_path for file in builder(str(ROOT)).recurse_included_files()}
        assert starter_files() <= included


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("build")
    names = (
        "m2dx recipes docs benchmarks examples/sounds/LICENSES.md tests/test_packaging.py .gitignore LICENSE"
    )
    for name in [*names.split(), *(path.name for path in ROOT.glob("*.[mt]*") if path.is_file())]:
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target)
        else:
            shutil.copy(ROOT / name, target)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), "."]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    return folder / "dist"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_licence_only(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "m2dx").rglob("*.py")} | starter_files()
    info = f"m2dx-{PROJECT['version']}.dist-info"
    assert sources | {"m2dx/py.typed", f"{info}/licenses/LICENSE"} <= names
    assert {name.split("/")[0] for name in names} == {"m2dx", info}
    assert wheel.stat().st_size < MOST_BYTES


@pytest.mark.slow
def test_the_sdist_holds_sources_and_docs_but_neither_audio_nor_tests(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "constraints.txt",
        "m2dx/py.typed",
    } | starter_files() <= names
    assert {"recipes/starter/collect.py", "recipes/starter/sounds.csv.gz"} <= names
    assert any(name.startswith("docs/") for name in names)
    assert any(name.startswith("recipes/") for name in names)
    assert not any(name.startswith(("tests/", "examples/", "plugins/")) for name in names)
    assert sdist.stat().st_size < MOST_BYTES + 2_000_000


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment with the wheel; the dependencies are those of the environment of the tests."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(environment, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(environment), "platbase": str(environment)})
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = Path(paths["scripts"], "python")
    (wheel,) = dist.glob("*.whl")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*command, "--ignore-installed", str(wheel)], check=True, capture_output=True)
    return python.parent


def run(command: list[str], folder: Path) -> str:
    """Output of a command that knows nothing of the repository."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))
    }
    environment |= {"M2DX_PLUGINS": "", "COLUMNS": "120"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_installed_wheel_is_what_runs(installed: Path, tmp_path: Path) -> None:
    where = run([str(installed / "python"), "-c", "import m2dx; print(m2dx.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "train" in run([str(installed / "m2dx"), "--help"], tmp_path)


@pytest.mark.slow
def test_the_installed_wheel_has_the_starter_without_a_network(installed: Path, tmp_path: Path) -> None:
    fits, where = run([str(installed / "python"), "-c", OFFLINE], tmp_path).split()
    assert fits == "True" and Path(where).is_relative_to(installed.parent)
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(scale=0.1, size=8000), 16_000)
    run([str(installed / "m2dx"), "encode", "starter", "noise.wav", "-o", "features.csv"], tmp_path)
    assert len((tmp_path / "features.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_the_installed_wheel_trains(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "tones").mkdir()
    for index in range(8):
        tone = np.sin(np.arange(16_000) * 0.05 * (index + 1)).astype(np.float32)
        soundfile.write(tmp_path / "tones" / f"{index}.wav", 0.5 * tone, 16_000)
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    run([str(installed / "m2dx"), "train", "tiny.yaml"], tmp_path)
    assert (tmp_path / "runs" / "tiny" / "metrics.jsonl").is_file()
    encode = "import m2dx, torch; print(m2dx.load_encoder('runs/tiny').clip(torch.zeros(16000)).shape)"
    assert "[1, 192]" in run([str(installed / "python"), "-c", encode], tmp_path)
