"""Commands that plugins add to m2dx: found by name, imported when asked for, blamed when broken."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m2dx import cli
from m2dx.contract.errors import PluginError

SONG = """
    from typing import Annotated

    import typer

    commands = typer.Typer()

    @commands.command()
    def song(whale: str, verses: Annotated[int, typer.Option()] = 1) -> None:
        '''Sing as a whale.'''
        typer.echo(f"{whale} " * verses)
"""

ORCA = "from __future__ import annotations\n" + textwrap.dedent(SONG).replace("whale: str", "whale: Orca")

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package with one command, as pip would leave it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("M2DX_PLUGINS", "")

    def install(package: str, code: str, *, command: str = "song") -> None:
        module = f"command_under_test_{package}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"m2dx_{package}-1.2.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: m2dx-{package}\nVersion: 1.2\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        entry = f"[m2dx.commands]\n{command} = {module}:commands\n"
        (info / "entry_points.txt").write_text(entry, encoding="utf-8")

    return install


def output(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_plugins_command_is_listed_explained_and_run(install: Install) -> None:
    install("whale", SONG)
    assert "Sing as a whale." in output("--help")
    assert "--verses" in output("song", "--help")
    assert output("song", "blue", "--verses", "2") == "blue blue \n"
    assert "command: song" in output("plugins")
    assert "completion" not in output("song", "--help")


def test_an_app_with_several_commands_is_a_group(install: Install) -> None:
    install("whale", SONG + "    commands.command('hum')(lambda: typer.echo('hm'))\n")
    assert output("song", "hum") == "hm\n"
    assert output("song", "song", "blue") == "blue \n"


def test_wrong_arguments_of_a_plugins_command_are_refused(install: Install) -> None:
    install("whale", SONG)
    result = CliRunner().invoke(cli.app, ["song", "blue", "--verse", "2"])
    assert result.exit_code == 2
    result = CliRunner().invoke(cli.app, ["sang"])
    assert result.exit_code == 2
    assert "Did you mean 'song'?" in result.output


def test_only_the_command_that_is_typed_is_imported(install: Install) -> None:
    install("whale", SONG)
    install("seal", "raise SystemExit('imported')", command="bark")
    assert output("song", "blue") == "blue \n"
    output("show", "name")
    assert "command_under_test_seal" not in sys.modules


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import whales_that_are_not_installed", "ModuleNotFoundError: No module named 'whales_that_are"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("commands = print", "must be a typer.Typer, but command_under_test_whale:commands is <built-in"),
        (ORCA, "building the command 'song' of"),
    ],
)
def test_a_broken_command_is_blamed_and_stops_no_other(install: Install, code: str, reason: str) -> None:
    install("whale", code)
    with pytest.raises(PluginError, match=r"the command 'song' of m2dx-whale 1\.2") as raised:
        output("song", "--verses", "2")
    assert reason in str(raised.value)
    listed = output("--help")
    assert "cannot be used" in listed and "train" in listed
    assert "failed: " in output("plugins")
    output("show", "name")


def test_two_packages_with_one_command_are_named(install: Install) -> None:
    install("whale", SONG)
    install("dolphin", SONG)
    with pytest.raises(PluginError, match=r"m2dx-(whale|dolphin) 1\.2 and .* uninstall all but one"):
        output("song", "blue")


def test_the_core_keeps_its_commands(install: Install) -> None:
    install("whale", SONG.replace("def song", "def show"), command="show")
    assert "train.epochs" in output("show", "train.epochs")
    assert "the name 'show' is taken by m2dx itself" in output("plugins")


def test_help_without_plugins_needs_no_torch() -> None:
    code = """
        import sys
        from typer.testing import CliRunner
        from m2dx.cli import app
        assert CliRunner().invoke(app, ["--help"]).exit_code == 0
        assert "torch" not in sys.modules, "a command of a plugin imports torch before it is used"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
