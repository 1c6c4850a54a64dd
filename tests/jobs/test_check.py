"""What `m2dx check` prints of the evaluation's clips."""

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import m2dx
from m2dx.contract.components import Clip
from m2dx.contract.errors import TrainingError
from m2dx.jobs import core
from m2dx.jobs.check import MOST_CLASSES, check_recipe, division_table


def printed(clips: list[Clip]) -> list[list[str]]:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(division_table("heart", clips))
    lines = [line.strip("┃│ ") for line in console.export_text().splitlines()]
    return [line.replace("┃", "│").split("│") for line in lines]


def test_the_division_of_a_task_is_told_by_class_and_split() -> None:
    clips = [Clip(f"{n}.wav", labels=("ab"[n % 2],), split="train" if n < 6 else "test") for n in range(9)]
    rows = [[cell.strip() for cell in row] for row in printed(clips)]
    assert rows[0] == ["clips of heart"]
    assert ["class", "train", "test"] in rows and ["a", "3", "2"] in rows and ["b", "3", "1"] in rows
    assert ["all", "6", "3"] in rows and not any(row[0] == "groups" for row in rows)


def test_a_loss_that_is_not_finite_in_training_ends_the_check(tiny_recipe: Any, console: Console) -> None:
    class Late(m2dx.Regulariser):
        """NaN in training alone, so that a trial in eval mode shows nothing."""

        name = "late"

        def forward(self, output: Any, target: Any) -> Any:
            return output.tokens.mean() * (float("nan") if self.training else 1.0)

    host = m2dx.PluginHost(
        {"m2dx": core, "acme": SimpleNamespace(regularisers=m2dx.hookimpl(lambda: [Late]))}
    )
    recipe = tiny_recipe("tasks.late={regulariser: late}", with_host=host)
    with pytest.raises(
        TrainingError, match=r"must be finite, but at step 1 they are loss nan, .*loss_late nan"
    ):
        check_recipe(recipe, host, console)


def test_folds_are_in_order_groups_are_counted_and_many_classes_are_cut() -> None:
    clips = [Clip(f"{n}.wav", labels=(f"c{n:03}",), split=str(n % 11), group=str(n // 20)) for n in range(80)]
    rows = [[cell.strip() for cell in row] for row in printed(clips)]
    assert ["class", *map(str, range(11))] in rows
    assert ["groups", *["4"] * 11] in rows
    assert any(row[0] == f"({80 - MOST_CLASSES} more)" for row in rows)
