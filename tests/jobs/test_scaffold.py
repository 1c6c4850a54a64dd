"""`m2dx new-plugin`: its names and refusals, and the package that it writes."""

import inspect
import io
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from m2dx_scaffold.package import PluginNames, check_not_installed, kinds, render, write_plugin
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

import m2dx
from m2dx import cli
from m2dx.cli import shared
from m2dx.contract.atomic import replace_text
from m2dx.contract.components import KINDS
from m2dx.jobs.check import check_recipe

ROOT = Path(__file__).parents[2]
ENVELOPE = ROOT / "plugins" / "m2dx-envelope"
SCAFFOLD = ROOT / "plugins" / "m2dx-scaffold"
LONGEST = "a" * 40


def files_of(package: Path) -> dict[str, str]:
    """Text by path, without what tools leave behind."""
    return {
        path.relative_to(package).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(package.rglob("*"))
        if path.is_file() and not any(part.endswith(("cache", "cache__")) for part in path.parts)
    }


# Names


def test_what_follows_from_a_name() -> None:
    names = PluginNames("whale-song2")
    assert (names.distribution, names.module) == ("m2dx-whale-song2", "m2dx_whale_song2")
    assert names.component == "whale_song2_bands"
    assert PluginNames("whale-song", "noise_source").component == "whale_song_noise_source"


@pytest.mark.parametrize("name", ["a", "a1", "whale-song", LONGEST])
def test_names_that_can_be(name: str) -> None:
    assert PluginNames(name).module.isidentifier()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Whale_Song",
            r"small letters, digits and single hyphens.*but is 'Whale_Song'; 'whale-song' would do",
        ),
        ("2-whales", "start with a letter, but is '2-whales'; 'whales' would do"),
        ("whale--song", "'whale-song' would do"),
        ("-whale", "'whale' would do"),
        ("whale\n", "'whale' would do"),
        ("M2DX-Song2", "'song2' would do"),
        ("", "but is ''$"),
        ("鯨", "but is '鯨'$"),
        ("../whale", "'whale' would do"),
        ("m2dx-whale", "leave the first m2dx- out: whale"),
        (LONGEST + "a", "at most 40 characters, but has 41"),
    ],
)
def test_names_that_cannot_be(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(m2dx.RecipeError, match=message):
        write_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_taken(host: m2dx.PluginHost) -> None:
    check_not_installed(PluginNames("whale-song"), host)
    with pytest.raises(m2dx.RecipeError, match="must not be that of an installed one, but 'm2dx' is"):
        check_not_installed(PluginNames("m2dx"), host)

    class Bands(m2dx.OfflineEncoder):
        """Of another plugin."""

        name = "whale_song_bands"

        def forward(self, views: m2dx.Views) -> Tensor:
            return views.clean_wav

    plugin = SimpleNamespace(offline_encoders=m2dx.hookimpl(lambda: [Bands]))
    with pytest.raises(m2dx.RecipeError, match="must not be that of an installed one, but 'mine' is"):
        check_not_installed(PluginNames("mine"), m2dx.PluginHost({"mine": plugin}))
    with pytest.raises(m2dx.RecipeError, match="'whale_song_bands', which the plugin 'mine' has already"):
        check_not_installed(PluginNames("whale-song"), m2dx.PluginHost({"mine": plugin}))
    check_not_installed(PluginNames("whale-song", "loss"), m2dx.PluginHost({"mine": plugin}))


def test_a_package_that_is_installed_is_taken(
    host: m2dx.PluginHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its entry point is called, and also where M2DX_PLUGINS leaves it out."""
    info = tmp_path / "m2dx_whale_song-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: m2dx-whale-song\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[m2dx]\nwhales = m2dx_whale_song\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(m2dx.RecipeError, match=r"m2dx-whale-song 0\.3 is installed already"):
        check_not_installed(PluginNames("whale-song"), host)
    with pytest.raises(m2dx.RecipeError, match="but 'whales' is"):
        check_not_installed(PluginNames("whales"), host)


# The files


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m2dx-whale").mkdir()
    (tmp_path / "m2dx-song").symlink_to(tmp_path / "nowhere")
    for name in ("whale", "song"):
        with pytest.raises(m2dx.RecipeError, match=rf"m2dx-{name} must not exist yet; choose another name"):
            write_plugin(name, tmp_path)
    assert list((tmp_path / "m2dx-whale").iterdir()) == [] and not (tmp_path / "nowhere").exists()
    (tmp_path / "file").touch()
    with pytest.raises(m2dx.RecipeError, match=r"m2dx-whale cannot be written: .*--folder"):
        write_plugin("whale", tmp_path / "file")


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(range(3))

    def fill_the_disk(path: Path, text: str) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        replace_text(path, text)

    with monkeypatch.context() as patch, pytest.raises(m2dx.RecipeError, match="No space left on device"):
        patch.setattr("m2dx_scaffold.package.replace_text", fill_the_disk)
        write_plugin("whale", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert write_plugin("whale", tmp_path / "new" / "folder").is_dir()


def test_every_kind_has_a_template() -> None:
    assert set(kinds()) == set(KINDS)
    with pytest.raises(
        m2dx.RecipeError, match=r"--kind must be one of .*, but is 'los'; did you mean 'loss'\?"
    ):
        PluginNames("whale", "los")
    with pytest.raises(
        m2dx.RecipeError, match=r"--kind must be one of .*, but is 'xyz'$"
    ):  # the list is there once
        PluginNames("whale", "xyz")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a", LONGEST])
def test_every_template_is_rendered(name: str, kind: str) -> None:
    names = PluginNames(name, kind)
    contents = render(names)
    for file, text in contents.items():
        assert not any(mark in file + text for mark in ("<<", ">>", "{module}", "{%"))
        assert "whale" not in text
        assert text.endswith("\n") or text == ""
        if file.endswith(".py"):
            compile(text, file, "exec")
        if file.endswith((".yaml", ".yml")):
            assert isinstance(yaml.safe_load(text), dict)
    project = tomllib.loads(contents["pyproject.toml"])["project"]
    assert project["name"] == names.distribution and project["license"] == "Apache-2.0"
    assert project["entry-points"] == {"m2dx": {name: names.module}}
    assert {f"{names.module}/__init__.py", f"{names.module}/py.typed"} <= contents.keys()
    assert f"tests/test_{names.module}.py" in contents and names.component in contents["recipe.yaml"]


def test_the_code_is_formatted_and_clean(tmp_path: Path) -> None:
    """By the settings that the packages bring; neither kind nor length of the name changes anything."""
    pytest.importorskip("ruff")
    for kind in KINDS:
        for name in ("a", "whale-song", LONGEST):
            write_plugin(name, tmp_path / kind, kind)
    for command in (["check"], ["format", "--check", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_plugin_in_the_repository_is_what_the_template_gives(tmp_path: Path) -> None:
    """After a change of the template: remove plugins/m2dx-envelope and write it anew (not with it installed)."""
    assert files_of(ENVELOPE) == files_of(write_plugin("envelope", tmp_path))


def test_the_command_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(shared, "terminal", lambda: Console(file=output, width=200, markup=False))
    result = CliRunner().invoke(cli.app, ["new-plugin", "whale-song", "--folder", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    package = tmp_path / "new" / "m2dx-whale-song"
    assert files_of(package) == render(PluginNames("whale-song"))
    assert f"plugin: {package}\n" in output.getvalue() and "pip install -e" in output.getvalue()
    again = CliRunner().invoke(cli.app, ["new-plugin", "whale-song", "--folder", str(tmp_path / "new")])
    assert isinstance(again.exception, m2dx.RecipeError)


def test_a_wrong_name_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom m2dx.cli import app\n"
        "result = CliRunner().invoke(app, ['new-plugin', 'Whale'])\n"
        "assert 'would do' in str(result.exception), result\n"
        "assert not {'torch', 'm2dx.jobs.core'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# The package at work


def assert_trained(folder: Path, *, steps: int) -> None:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert all(0 < line["loss_envelope"] < 20 for line in lines)
    assert (folder / "encoder" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plugin("whale-song", tmp_path_factory.mktemp("new"))


@pytest.mark.slow
def test_its_own_tests_pass_and_its_recipe_trains_on_its_sample(
    install: Callable[[Path], Callable[..., str]], package: Path, two_steps: list[str], tmp_path: Path
) -> None:
    tests, sounds = str(package / "tests"), str(tmp_path / "sounds")
    printed = install(package)(
        ["m2dx_whale_song.sample", sounds, "--clips", "8"],
        ["m2dx", "train", str(package / "recipe.yaml"), *two_steps],
        ["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests],
        folder=tmp_path,
        SOUNDS=sounds,
    )
    assert "8 passed" in printed
    assert_trained(tmp_path / "runs" / "recipe", steps=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_of_each_kind_passes_its_tests_and_its_recipe_is_one(
    kind: str,
    console: Console,
    two_steps: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = PluginNames(f"new-{kind.replace('_', '-')}", kind)
    package = write_plugin(names.name, tmp_path, kind)
    for folder in (package, package / "tests"):
        monkeypatch.syspath_prepend(folder)
    tests = vars(import_module(f"test_{names.module}"))
    own = [test for name, test in tests.items() if name.startswith("test_")]
    assert len(own) >= 3
    for number, test in enumerate(own):
        given = {"tmp_path": tmp_path / str(number)} if inspect.signature(test).parameters else {}
        test(**given)
    sounds = import_module(f"{names.module}.sample").write_sample(tmp_path / "sounds")
    monkeypatch.setenv("SOUNDS", str(sounds))
    monkeypatch.setattr("m2dx.jobs.check.TIMED_STEPS", 1)
    with_plugin = m2dx.PluginHost.discover()
    with_plugin.register(names.name, import_module(names.module))
    smaller = [
        field for field in two_steps if kind in ("offline_encoder", "noise_source") or "noise" not in field
    ]
    recipe = m2dx.load_recipe(package / "recipe.yaml", smaller, host=with_plugin)
    check_recipe(recipe, with_plugin, console)
    assert names.component in console.export_text()


@pytest.fixture
def fresh(run_apart: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """bin/ of a new environment with m2dx from this checkout; packages come from the index that pip is set to."""
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pins = str(ROOT / "constraints.txt")
        run_apart(
            [str(environment / "bin" / "pip"), "install", "--quiet", "-c", pins, str(ROOT), str(SCAFFOLD)],
            environment,
        )
        yield environment / "bin"
    finally:
        shutil.rmtree(environment, ignore_errors=True)  # 5 GB, and pytest keeps the folders of three sessions


@pytest.mark.slow
def test_it_works_in_a_fresh_environment(
    fresh: Path, run_apart: Callable[..., str], two_steps: list[str], tmp_path: Path
) -> None:
    """As its author has it: written by the installed command, installed, tested, checked, trained with."""

    def command(line: str, folder: Path, **environment: str) -> str:
        name, *arguments = line.split()
        return run_apart([str(fresh / name), *arguments], folder, **environment)

    command("m2dx new-plugin whale-song", tmp_path)
    package = tmp_path / "m2dx-whale-song"
    command(f"pip install --quiet -c {ROOT / 'constraints.txt'} -e .[dev]", package)
    listed = command("m2dx plugins", tmp_path)
    assert "m2dx-whale-song 0.1.0" in listed and "offline_encoder: whale_song_bands" in listed
    for check in ("ruff check", "ruff format --check", "mypy"):
        command(check, package)
    assert "8 passed" in command("pytest -q", package)
    command("python -m m2dx_whale_song.sample sounds", package)
    assert "whale_song_bands" in command("m2dx check recipe.yaml", package, SOUNDS=str(package / "sounds"))
    command("m2dx train recipe.yaml " + " ".join(two_steps), package, SOUNDS=str(package / "sounds"))
    assert_trained(package / "runs" / "recipe", steps=2)
