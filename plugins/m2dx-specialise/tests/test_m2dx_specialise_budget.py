"""Rungs of a search: what fits into the time, what is dropped, and what is corrected by what runs really cost."""

from pathlib import Path
from typing import Any

import pytest
from m2dx_specialise import rungs
from m2dx_specialise.budget import SHARE, Rung, divide_time, sizes, steps
from m2dx_specialise.candidates import SMALL, Candidate, Setting
from m2dx_specialise.state import Request, State
from rich.console import Console

import m2dx


@pytest.mark.parametrize(("candidates", "expected"), [(1, (1,)), (2, (2, 1)), (4, (4, 2, 1)), (9, (9, 3, 1))])
def test_a_third_of_the_candidates_goes_on(candidates: int, expected: tuple[int, ...]) -> None:
    assert sizes(candidates) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(0.3, 1), (9.9, 9), (57.0, 57), (1234.5, 1200), (99_999, 99_000), (1e9, 300_000)]
)
def test_steps_have_two_digits(count: float, expected: int) -> None:
    assert steps(count) == expected


def test_candidates_have_the_same_time_whatever_their_steps_cost() -> None:
    budget = divide_time({"a": 0.1, "b": 0.2, "c": 0.4}, 260, overhead=5)
    # (3 + 1 * 3) shares in 260 - 4 * 5 seconds: 40 s in the first rung, 120 s in the second
    assert budget.rungs == (
        Rung(3, {"a": 400, "b": 200, "c": 100}),
        Rung(1, {"a": 400 * SHARE, "b": 200 * SHARE, "c": 100 * SHARE}),
    )
    assert not budget.dropped
    # with the winner once more: (3 + 2 * 3) shares in 385 - 5 * 5 seconds
    assert divide_time({"a": 0.1, "b": 0.2, "c": 0.4}, 385, overhead=5, again=True) == budget


@pytest.mark.parametrize(
    ("costs", "seconds", "dropped"),
    [
        ({"a": 0.1, "b": 0.1, "c": 0.1}, 55, ("c",)),  # the least promising
        ({"a": 0.1, "b": 9.0, "c": 0.1}, 100, ("b",)),  # the slow one
        ({"a": 0.1}, 5, ("a",)),
        ({"a": 0.1}, -5, ("a",)),
        ({}, 100, ()),
    ],
)
def test_what_has_no_time_is_dropped(
    costs: dict[str, float], seconds: float, dropped: tuple[str, ...]
) -> None:
    budget = divide_time(costs, seconds, overhead=0)
    assert budget.dropped == dropped
    assert bool(budget.rungs) == (len(dropped) < len(costs))


@pytest.mark.parametrize(("minutes", "again", "rungs_of"), [(2.0, True, 1), (1.0, False, 1), (0.5, False, 0)])
def test_a_training_that_is_tested_once_is_better_than_none(
    minutes: float, again: bool, rungs_of: int, tmp_path: Path
) -> None:
    state = State(tmp_path, Request(data=tmp_path, minutes=minutes))
    state.save(**{f"baseline:{name}": {"accuracy": 0.1, "seconds": 1.0} for name in ("x", "y", "z")})
    setting = Setting(tmp_path, tmp_path / "list.csv", 100, 100, 1.0)
    budget = rungs.Rungs(state, m2dx.PluginHost(), Console(quiet=True), setting, again=True).divided(
        {"a": 0.15}
    )
    assert (budget["again"], len(budget["rungs"])) == (again, rungs_of)


@pytest.mark.parametrize(
    ("names", "minutes", "trial_cost", "cost", "ran"),
    [
        # as it was measured: three have the same time, and then one of them what is left
        ("abc", 10, 0.4, 0.4, ["a-190", "b-190", "c-190", "c-640"]),
        # the machine becomes quiet: the last rung has more steps
        ("abc", 10, 0.4, 0.2, ["a-190", "b-190", "c-190", "c-1800"]),
        # or those for which there was no time join, and have the same time
        ("abc", 10, 1.0, 0.25, ["a-490", "b-490", "c-490"]),
        ("abc", 2, 0.4, 0.1, ["a-160", "b-160", "c-160"]),
        # it becomes busy: there is no time for the second rung
        ("abc", 10, 0.4, 1.6, ["a-190", "b-190", "c-190"]),
        ("abc", 2, 0.4, 0.4, ["a-160"]),
        ("abc", 2, 2.0, 0.1, []),
        # or for the second of three: the last has what is left
        ("abcd", 10, 0.2, 0.5, ["a-110", "b-110", "c-110", "d-110", "d-510"]),
    ],
)
def test_what_runs_cost_corrects_the_plan(
    names: str,
    minutes: float,
    trial_cost: float,
    cost: float,
    ran: list[str],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    clock, trained = [0.0], list[str]()
    monkeypatch.setattr(State, "seconds", property(lambda self: clock[0]))
    setting = Setting(tmp_path, tmp_path / "list.csv", 100, 100, 1.0)

    def trial(*_: Any) -> dict[str, float]:
        now = cost if trained else trial_cost
        clock[0] += 5 + 12 * now
        return {"seconds": now, "mean": 0.0, "std": 1.0}

    def train(recipe: dict[str, Any], *_: Any) -> float:
        trained.append(recipe["name"])
        took = int(recipe["name"].split("-")[1]) * cost
        clock[0] += rungs.RUN_SECONDS + took
        return took

    def scored(name: str, *_: Any) -> dict[str, float]:
        clock[0] += 1
        return {"accuracy": names.index(name[0]) / 10, "loss": 0.0, "seconds": 1.0}

    monkeypatch.setattr(rungs, "trial", trial)
    monkeypatch.setattr(rungs, "train", train)
    monkeypatch.setattr(rungs, "scored", scored)
    candidates = [Candidate(name, name.upper(), SMALL) for name in names]

    def run(state: State) -> str | None:
        one = rungs.Rungs(state, m2dx.PluginHost(), Console(quiet=True), setting)
        return one.best(candidates, lambda _: {})

    state = State(tmp_path, Request(data=tmp_path, minutes=minutes))
    state.save(**{f"baseline:{name}": {"accuracy": 0.1, "seconds": 1.0} for name in ("x", "y", "z")})
    winner = run(state)
    assert trained == ran and (winner in ran if ran else winner is None)
    assert ran or state.get("budget")["enough"] > minutes
    assert clock[0] <= 60 * minutes or cost > trial_cost
    clock[0] = 1e6  # resumed: nothing is decided anew
    assert run(state) == winner and trained == ran
