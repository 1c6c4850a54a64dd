"""What scores of an encoder and its baselines mean, in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from m2dx.contract.components import Clip, Prediction, Score
from m2dx.results.scores import read_scores, write_scores
from m2dx.results.verdict import WHAT_NOW, advice, compare, verdict, with_differences


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
            {**one(0.8), "heart": {"mean_logmel": (0.5, 0.1)}},
            "No baseline has the same score, so these scores cannot be judged.",
        ),
        (
            one(0.8, 0.7, 0.75),
            f"{AHEAD} 1 of 1 score, beyond chance in 1 of them; the best baselines: drums knn accuracy: +5.0 points "
            "(95 %: 3.6 to 6.4) on rival1.",
        ),
        (
            one(0.8, 0.7, 0.79),
            f"{AHEAD} 1 of 1 score, beyond chance in 0 of them; the best baselines: drums knn accuracy: +1.0 points "
            "(95 %: -0.4 to 2.4) on rival1.",
        ),
        (
            one(0.8, 0.7, ci95=None),
            f"{AHEAD} 1 of 1 score, beyond chance in 0 of them (not known where there is no interval); the best "
            "baselines: drums knn accuracy: +10.0 points on rival0.",
        ),
        (
            one(0.8, 0.7, 0.81),
            f"{AHEAD} 0 of 1 score. Not ahead in drums knn accuracy: -1.0 points (95 %: -2.4 to 0.4) on rival1.",
        ),
        (
            one(0.8, 0.8),
            f"{AHEAD} 0 of 1 score. Not ahead in drums knn accuracy: +0.0 points (95 %: -1.4 to 1.4) on rival0.",
        ),
        (
            {**one(0.8, 0.7), "heart": MEAN_LOGMEL, "lungs": {"pretrained": (0.9, 0.01), "start": (0.6, 0.01)}},
            f"{AHEAD} 2 of 3 scores, beyond chance in 2 of them; the best baselines: lungs knn accuracy: +30.0 points "
            "(95 %: 28.6 to 31.4) on the start, drums knn accuracy: +10.0 points (95 %: 8.6 to 11.4) on "
            "rival0. Not ahead in heart knn accuracy: -5.0 points (95 %: -15.2 to 5.2) on mean log-mel.",
        ),
        (
            {f"t{n}": {"pretrained": (0.5, None), "start": (0.51 + n / 100, 0.0)} for n in range(5)},
            f"{AHEAD} 0 of 5 scores. Not ahead in t4 knn accuracy: -5.0 points on the start, "
            "t3 knn accuracy: -4.0 points on the start, t2 knn accuracy: -3.0 points on the start "
            "and 2 more.",
        ),
    ],
)  # fmt: skip
def test_the_verdict_says_what_the_baselines_allow(columns, told):
    assert verdict(scores_of(columns)) == told


def test_the_verdict_tells_of_test_clips_that_were_learned():
    scores = scores_of(one(0.8, 0.7))
    warned = [replace(score, details={**score.details, "taught": "9 of 9 are known"}) for score in scores[:1]]
    assert verdict([*warned, *scores[1:]]).endswith(". But of drums, 9 of 9 are known.")


@pytest.mark.parametrize(
    ("rivals", "ci95", "apart"),
    [
        ((0.7,), 0.07, True),  # sqrt(2) * 0.07 = 0.099
        ((0.7,), 0.072, False),
        ((0.9,), 0.07, True),
        ((0.7, 0.79), 0.04, False),
        ((0.9, 0.7), None, None),
        ((0.81,), 0.01, False),
    ],
)
def test_a_gain_is_beyond_chance_where_it_is_over_each_rival_that_counts(rivals, ci95, apart):
    (found,) = compare(scores_of(one(0.8, *rivals, ci95=ci95)))
    assert found.is_apart is apart and found.rival.mean == max(rivals)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, ""),
        (one(0.8, 0.7), ""),
        (one(0.8, 0.79), "more test clips tell"),
        (one(0.8, 0.7, ci95=None), "more test clips tell"),
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


def of_clips(encoder, right, *, several=False):
    clips = [Clip(Path(f"{i}.wav"), labels=("a",)) for i in range(len(right))]
    predictions = [Prediction(clip, "a" if ok else "b", 1.0) for clip, ok in zip(clips, right, strict=True)]
    mean = sum(right) / len(right)
    score = Score(
        "drums", "accuracy", mean, 0.2, (mean,), "knn", encoder=encoder, predictions=tuple(predictions)
    )
    return replace(score, details={"classifiers": 3}) if several else score


@pytest.mark.parametrize(
    ("several", "told"),
    [
        (
            False,
            "+10.0 points (95 %: 4.0 to 16.0) on random weights.",
        ),  # 10 of 100 clips are gained, none lost
        (True, "+10.0 points (95 %: -18.3 to 38.3) on random weights."),  # as if on other clips
    ],
)
def test_clips_are_compared_in_pairs_and_the_page_says_the_same(tmp_path, several, told):
    own, rival = [True] * 80 + [False] * 20, [True] * 70 + [False] * 30
    scores = [of_clips("pretrained", own), of_clips("random_weights", rival, several=several)]
    scores = with_differences(scores)
    assert verdict(scores).endswith(told)
    write_scores(scores, tmp_path / "scores.json")
    assert verdict(read_scores(tmp_path / "scores.json")) == verdict(scores)
