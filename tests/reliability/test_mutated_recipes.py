"""`m2dx check` of mutated recipes: each is checked, or refused in a moment with lines that say what is wrong."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import forks
import pytest
from mutated_recipes import BASE, SOUNDS, lines_of, mutated

from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe

CPU_SECONDS = 10  # the machine may be busy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a few recordings and a pipe, for the recipes; the host is made once for all forks."""
    import m2dx.jobs.check

    host = PluginHost.discover()
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "few").mkdir()
    for path in sorted((SOUNDS / "sounds" / "drums").rglob("*.ogg"))[:4]:
        shutil.copy(path, folder / "few")
    os.mkfifo(folder / "pipe")
    (folder / "whole.yaml").write_text("\n".join(lines_of(BASE)))
    load_recipe(folder / "whole.yaml", host=host)  # what it takes from the host stays with it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(m2dx.cli.shared, "plugin_host", lambda: host)
        yield folder


def fault_of(seed: int, folder: Path) -> str | None:
    """What is wrong with the answer to the recipe of a seed."""
    recipe = folder / "recipe.yaml"
    recipe.write_bytes(mutated(seed))
    ended = forks.run(["check", str(recipe)], folder / "log", cpu_seconds=CPU_SECONDS)
    what = None
    if ended.code is None:
        what = "hangs"
    elif ended.code not in (0, 1):
        what = f"exit code {ended.code}"
    elif forks.TRACEBACK in ended.output:
        what = "a traceback"
    elif ended.code == 1 and not _told(ended.output):
        what = "no line says what is wrong"
    elif any(ord(letter) < 32 and letter not in "\n\t" for letter in ended.output):
        what = "orders to the terminal"
    return what and f"seed {seed}: {what}: {ended.output[-500:]}"


def _told(output: str) -> bool:
    """Whether the error is a few lines of a readable length."""
    _, found, text = output.rpartition("error: ")
    lines = text.splitlines()
    return bool(found) and 1 <= len(lines) <= 40 and max(map(len, lines)) <= 1500


SLOW = [
    pytest.param(range(first, min(first + 70, 500)), marks=pytest.mark.slow) for first in range(10, 500, 70)
]


@pytest.mark.parametrize("seeds", [range(10), *SLOW])
def test_mutated_recipes_are_answered(seeds: range, folder: Path) -> None:
    """500 in all."""
    faults = [fault for seed in seeds if (fault := fault_of(seed, folder)) is not None]
    assert not faults, "\n\n".join(faults)
