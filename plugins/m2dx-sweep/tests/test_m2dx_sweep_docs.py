"""The commands in docs/sweeps.md are right: their grids parse, and those of the papers are valid in every point."""

import re
import shlex
from pathlib import Path

import m2dx_audioset
import m2dx_hubert
import m2dx_probes
import m2dx_tasks
import pytest
from m2dx_sweep.grid import parse_grid
from m2dx_sweep.running import Point, points_of

from m2dx.contract.host import PluginHost
from m2dx.jobs import core

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8").replace("\\\n", " ")
COMMANDS = [
    [word for word in shlex.split(line, comments=True)[2:] if "=" in word or word.endswith(".yaml")]
    for line in re.findall(r"^m2dx sweep .*=.*$", PAGE, re.MULTILINE)
]
OF_PAPERS = [command for command in COMMANDS if command[0].startswith("recipes/")]


@pytest.fixture(scope="module")
def host() -> PluginHost:
    """The core and the plugins whose data sets and components the recipes name, installed or not."""
    return PluginHost(
        {
            "m2dx": core,
            "audioset": m2dx_audioset,
            "hubert": m2dx_hubert,
            "probes": m2dx_probes,
            "tasks": m2dx_tasks,
        }
    )


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables of the recipes."""
    part = (ROOT / "recipes" / "linear" / "nine.yaml").read_text(encoding="utf-8")
    for name in ("AUDIOSET", "LIBRISPEECH", "HUBERT", *re.findall(r"\$\{(\w+)\}", part)):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(ROOT)


def plan(command: list[str], host: PluginHost) -> list[Point]:
    return points_of(Path(command[0]), parse_grid(command[1:]), host=host)


def test_there_are_the_five_sweeps_of_the_paper() -> None:
    assert len(OF_PAPERS) == 5 and len(COMMANDS) > 5


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_grids_parse(command: list[str]) -> None:
    assert list(parse_grid([word for word in command[1:] if not word.startswith("--")]).choices())


@pytest.mark.parametrize("text", re.findall(r"^\| `([^`]+=[^`]*)` \|", PAGE, re.MULTILINE))
def test_examples_of_the_syntax_parse(text: str) -> None:
    parse_grid([*shlex.split(text), "other=1,2"])


@pytest.mark.parametrize(("command", "count"), list(zip(OF_PAPERS, (5, 6, 7, 5, 5), strict=True)), ids=str)
def test_sweeps_of_the_paper_are_valid(command: list[str], count: int, host: PluginHost) -> None:
    assert len(plan(command, host)) == count


def test_table_xi_has_its_five_rows(host: PluginHost) -> None:
    rows = [
        (bool(recipe.noise), bool(recipe.tasks), recipe.model.weight)
        for recipe in (point.recipe for point in plan(OF_PAPERS[4], host))
    ]
    a, b, c, d, e = (
        (True, False, 1.0),
        (False, True, 0),
        (True, True, 0),
        (False, True, 1.0),
        (True, True, 1.0),
    )
    assert rows == [a, b, c, d, e]
