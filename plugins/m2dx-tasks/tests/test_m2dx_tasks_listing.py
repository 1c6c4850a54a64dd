"""The published tasks of the installed data sets, and what of them is on this machine."""

import io
from pathlib import Path
from types import SimpleNamespace

import m2dx_probes
import pytest
from m2dx_tasks.listing import on_this_machine, published_tasks, recipe_part, task_page, task_table
from rich.console import Console
from typer.testing import CliRunner

import m2dx
from m2dx import cli
from m2dx.cli import shared
from m2dx.contract.errors import RecipeError
from m2dx.jobs import core
from m2dx.recipe.loading import load_recipe

INFO = m2dx.TaskInfo(
    title="Moon sounds",
    unit_seconds=2.5,
    num_classes=3,
    metric="accuracy",
    division="train, valid, test",
    source="Armstrong, 1969, table I",
    variable="MOON",
    layout="MOON/\n  crater/1.wav",
    get="from the moon; CC0",
)


class Moon(m2dx.Dataset):
    """Clips of a moon.

    Options:
        path: its folder
    """

    name = "moon"
    task = INFO

    def __init__(self, *, path: Path) -> None:
        self.path = path

    def clips(self, split=None):
        if not self.path.is_dir():
            raise m2dx.AudioError(f"no moon in {self.path}\nlook up")
        parts = self.path.name.split("-")  # "train-train-test": a clip of each
        found = [m2dx.Clip(self.path / "1.wav", labels=("crater",), split=part) for part in parts]
        return [clip for clip in found if split in (None, clip.split)]

    def missing(self):
        return ["the far side is missing"]


class Eclipse(Moon):
    """Whose `missing` fails."""

    name = "eclipse"

    def missing(self):
        raise KeyError("dark")


class Orbit(Moon):
    """That needs more than a folder.

    Options:
        height: km
    """

    name = "orbit"

    def __init__(self, *, path: Path, height: float) -> None:
        super().__init__(path=path)


class Own(Moon):
    """That is no published task."""

    name = "own"
    task = None


@pytest.fixture
def host():
    plugin = SimpleNamespace(datasets=m2dx.hookimpl(lambda: [Moon, Eclipse, Orbit, Own], specname="datasets"))
    host = m2dx.PluginHost({"m2dx": core, "probes": m2dx_probes, "moon": plugin})
    assert [record.error for record in host.records] == [None, None, None]
    return host


def on_disk(host, name, folder, monkeypatch):
    monkeypatch.setenv("MOON", str(folder))
    return on_this_machine(host, name, INFO)


def test_only_published_tasks_are_listed(host):
    assert published_tasks(host) == {"eclipse": INFO, "moon": INFO, "orbit": INFO}


@pytest.mark.parametrize(
    ("splits", "text"),
    [
        ("test-train-valid-train", "2 train, 1 valid, 1 test"),
        ("1-2-2-3", "4 clips in 3 folds"),
    ],
)
def test_clips_are_counted_by_split_or_fold_and_what_is_missing_is_told(
    host, tmp_path, monkeypatch, splits, text
):
    (tmp_path / splits).mkdir()
    assert on_disk(host, "moon", tmp_path / splits, monkeypatch) == [text, "the far side is missing"]


def test_the_folder_may_be_in_the_home_folder(host, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train").mkdir()
    assert on_disk(host, "moon", "~/train", monkeypatch)[0] == "1 train"


def test_a_variable_that_is_not_set_is_named(host, monkeypatch):
    for value in (None, ""):
        monkeypatch.delenv("MOON", raising=False) if value is None else monkeypatch.setenv("MOON", value)
        assert on_this_machine(host, "moon", INFO) == ["set MOON to its folder"]


def test_errors_are_told_in_a_line_and_stop_no_other_task(host, tmp_path, monkeypatch):
    assert on_disk(host, "moon", tmp_path / "gone", monkeypatch) == [f"no moon in {tmp_path / 'gone'}"]
    (tmp_path / "train").mkdir()
    (line,) = on_disk(host, "eclipse", tmp_path / "train", monkeypatch)
    assert "component 'eclipse'" in line and "KeyError" in line
    (line,) = on_disk(host, "orbit", tmp_path / "train", monkeypatch)
    assert line == "it cannot be built with `path` alone: `height`: Field required"
    console = Console(width=120, file=io.StringIO())
    console.print(task_table(host))
    assert "the far side is missing" in console.file.getvalue()


def test_the_page_of_a_task_has_its_files_origin_and_recipe(host, monkeypatch):
    monkeypatch.delenv("MOON", raising=False)
    text = task_page(host, "moon")
    for part in (
        "Moon sounds\n3 classes, 2.5 s, accuracy\ntrain, valid, test; Armstrong, 1969, table I\n",
        "The folder that MOON names:\n  MOON/\n    crater/1.wav\n",
        "From:\n  from the moon; CC0\n",
        recipe_part("moon", INFO),
    ):
        assert part in text


def test_the_recipe_part_loads(host, tmp_path, monkeypatch):
    monkeypatch.setenv("MOON", str(tmp_path))
    path = tmp_path / "moon.yaml"
    base = "data: {sets: {moon: {dataset: {name: folder, path: .}}}}\n"
    path.write_text(base + recipe_part("moon", INFO), encoding="utf-8")
    assert load_recipe(path, host=host).evaluation.tasks["moon"].dataset.options()["path"] == tmp_path


def test_what_is_no_task_is_refused(host):
    with pytest.raises(RecipeError, match=r"^there is no task 'mon'; did you mean 'moon'"):
        task_page(host, "mon")
    with pytest.raises(RecipeError, match=r"^the data set 'own' is not a published task"):
        task_page(host, "own")


def test_the_command_prints_table_and_page(host, monkeypatch):
    monkeypatch.setattr(shared, "plugin_host", lambda: host)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("MOON", raising=False)
    table = CliRunner().invoke(cli.app, ["tasks"], catch_exceptions=False).output
    assert table.count("Moon sounds") == 3 and "set MOON to its folder" in table
    page = CliRunner().invoke(cli.app, ["tasks", "moon"], catch_exceptions=False).output
    assert page.rstrip("\n").endswith(recipe_part("moon", INFO))
