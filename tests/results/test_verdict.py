"""What scores of an encoder and its baselines mean, in words."""

from pathlib import Path

import pytest

from m2dx.contract.components import Score
from m2dx.results.verdict import WHAT_NOW, advice, compare, verdict


def scores_of(columns):
    """Scores from {task: {encoder: (mean, half width)}}."""
    return [
        Score(task, "accuracy", mean, ci95, (mean,), "knn", encoder=encoder)
        for task, row in columns.items()
        for encoder, (mean, ci95) in row.items()
    ]


def one(own, *rivals, ci95=0.01):
    rows = {f"rival{number}": (mean, ci95) for number, mean in enumerate(rivals)}
    return {"drums": {"pretrained": (own, ci95), **rows}}


MEAN_LOGMEL = {"pretrained": (0.5, 0.1), "mean_logmel": (0.55, 0.02), "start": (0.52, 0.01)}
AHEAD = "The pre-trained encoder is ahead of every baseline in"


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, ""),
        (one(0.8), "No baseline was measured beside it, so these scores cannot be judged."),
        (
            one(0.8, 0.7, 0.75),
            f"{AHEAD} 1 of 1 score, by 5.0 points over the best of them, in 1 of them with intervals that do not "
            "overlap.",
        ),
        (
            one(0.8, 0.7, 0.79),
            f"{AHEAD} 1 of 1 score, by 1.0 points over the best of them, in 0 of them with intervals that do not "
            "overlap.",
        ),
        (
            one(0.8, 0.7, ci95=None),
            f"{AHEAD} 1 of 1 score, by 10.0 points over the best of them; some have a single value and so no "
            "interval, which leaves chance open.",
        ),
        (one(0.8, 0.7, 0.81), f"{AHEAD} 0 of 1 score. Not ahead in drums knn accuracy (1.0 points below rival1)."),
        (one(0.8, 0.8), f"{AHEAD} 0 of 1 score. Not ahead in drums knn accuracy (level with rival0)."),
        (
            {**one(0.8, 0.7), "heart": MEAN_LOGMEL, "lungs": {"pretrained": (0.9, 0.01), "start": (0.6, 0.01)}},
            f"{AHEAD} 2 of 3 scores, by 10.0 to 30.0 points over the best of them, in 2 of them with intervals that "
            "do not overlap. Not ahead in heart knn accuracy (5.0 points below Mean log-mel).",
        ),
        (
            {f"t{n}": {"pretrained": (0.5, 0.0), "start": (0.51 + n / 100, 0.0)} for n in range(5)},
            f"{AHEAD} 0 of 5 scores. Not ahead in t4 knn accuracy (5.0 points below Before this training), "
            "t3 knn accuracy (4.0 points below Before this training), t2 knn accuracy (3.0 points below Before this "
            "training) and 2 more.",
        ),
    ],
)  # fmt: skip
def test_the_verdict_says_what_the_baselines_allow(columns, told):
    assert verdict(scores_of(columns)) == told


@pytest.mark.parametrize(
    ("rivals", "ci95", "apart"),
    [
        ((0.7,), 0.04, True),
        ((0.7,), 0.06, False),
        ((0.9,), 0.04, True),
        ((0.9, 0.7), None, None),
        ((0.81,), 0.01, False),
    ],
)
def test_intervals_are_apart_where_they_leave_a_gap_to_each_rival_that_counts(rivals, ci95, apart):
    (found,) = compare(scores_of(one(0.8, *rivals, ci95=ci95)))
    assert found.is_apart is apart and found.rival.mean == max(rivals)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, ""),
        (one(0.8, 0.7), ""),
        (one(0.8, 0.79), "more seeds tell"),
        (one(0.8, 0.7, ci95=None), "more seeds tell"),
        (one(0.8, 0.9), WHAT_NOW),
        (one(0.8, 0.8), WHAT_NOW),
    ],
)
def test_advice_follows_the_verdict_and_its_page_is_there(columns, told):
    text = advice(scores_of(columns))
    assert told in text if told else text == ""
    page, _, anchor = WHAT_NOW.partition("/start/#")
    headings = (Path(__file__).parents[2] / "docs" / "start.md").read_text().splitlines()
    slugs = [
        "".join(c for c in h.lstrip("# ").lower().replace(" ", "-") if c.isalnum() or c == "-")
        for h in headings
    ]
    assert page == "https://m2dx.github.io/m2dx" and anchor in slugs
