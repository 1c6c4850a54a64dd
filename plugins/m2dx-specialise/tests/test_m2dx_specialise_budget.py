"""Rungs of a search: what fits into the time, and what is dropped."""

import pytest
from m2dx_specialise.budget import SHARE, Rung, divide_time, sizes, steps


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
