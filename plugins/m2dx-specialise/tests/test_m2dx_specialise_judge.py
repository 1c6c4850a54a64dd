"""The verdict: what the intervals of a test mean in words, and when there can be none."""

from pathlib import Path

import pytest
from m2dx_specialise.judge import PLAIN, Gain, Parts, decide, easier, from_labels, loss_of

import m2dx

LEVEL, UP, DOWN = Gain(0.5, -1.9, 2.2), Gain(6.1, 3.0, 9.2), Gain(-4.0, -7.0, -1.0)


@pytest.mark.parametrize(
    ("best", "gain", "above", "labels", "kind", "sentence"),
    [
        ("starter", UP, UP, 100, "specialise", "Specialise: +6.1 points (95 %: 3.0 to 9.2) over the best of what you "
         "have (starter), from 100 labels on."),
        (PLAIN, UP, None, None, "specialise", "Specialise: +6.1 points (95 %: 3.0 to 9.2) over the best of what you "
         "have (log-mel statistics)."),
        (PLAIN, LEVEL, None, None, "plain", "Do not pre-train: log-mel statistics with logistic regression are level "
         "(-1.9 to +2.2)."),
        (PLAIN, DOWN, None, None, "plain", "Do not pre-train: log-mel statistics with logistic regression are better "
         "by 4.0 points (-7.0 to -1.0)."),
        (PLAIN, None, None, None, "plain", "Use log-mel statistics with logistic regression: nothing could be trained "
         "in the time."),
        ("starter", LEVEL, UP, None, "use", "Use starter as it is: +6.1 points (95 %: 3.0 to 9.2) over log-mel "
         "statistics; training is level (-1.9 to +2.2 points)."),
        ("starter", DOWN, UP, None, "use", "Use starter as it is: +6.1 points (95 %: 3.0 to 9.2) over log-mel "
         "statistics; training loses (-7.0 to -1.0 points)."),
        ("starter", None, UP, None, "use", "Use starter as it is: +6.1 points (95 %: 3.0 to 9.2) over log-mel "
         "statistics; nothing could be trained in the time."),
        ("starter", LEVEL, LEVEL, None, "plain", "Do not pre-train: training is level (-1.9 to +2.2 points) beside "
         "starter, and log-mel statistics with logistic regression are level with it (-1.9 to +2.2 points between the "
         "two)."),
        ("starter", DOWN, DOWN, None, "plain", "Do not pre-train: training loses (-7.0 to -1.0 points) beside starter, "
         "and log-mel statistics with logistic regression are better (-7.0 to -1.0 points between the two)."),
    ],
)  # fmt: skip
def test_the_verdict_in_words(
    best: str, gain: Gain | None, above: Gain | None, labels: int | None, kind: str, sentence: str
) -> None:
    verdict = decide(best, gain, above, labels=labels)
    assert (verdict.kind, verdict.sentence) == (kind, sentence)


@pytest.mark.parametrize(("valid", "test", "told"), [(1.0, 0.66, True), (0.8, 0.7, False), (0.5, 0.9, False)])
def test_a_validation_part_that_is_easier_is_told(valid: float, test: float, told: bool) -> None:
    text = easier(valid, test)
    assert bool(text) == told and (not told or "100 against 66 % right" in text)


@pytest.mark.parametrize(
    ("lows", "expected"),
    [
        ([-1, 2, 3, 4], 50),
        ([1, -1, 3, 4], 100),
        ([-1, -1, -1, 4], None),
        ([1, 1, 1, 1], 25),
        ([-1, -1, -1, -1], None),
    ],
)
def test_from_how_many_labels_on(lows: list[float], expected: int | None) -> None:
    curve = [
        {"labels": 25 * 2**i, "value": low + 1, "low": low, "high": low + 2} for i, low in enumerate(lows)
    ]
    assert from_labels(curve) == expected


def clips(*given: tuple[str, str | None, int]) -> list[m2dx.Clip]:
    """So many clips of each label and split; every fourth one has a group of its own."""
    return [
        m2dx.Clip(
            Path(f"{label}{split}{i}.wav"),
            0.0,
            1.0,
            (label,) if label else (),
            split,
            f"{label}{split}{i // 4}",
        )
        for label, split, count in given
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([("", None, 50)], "there are no labels"),
        ([("a", "train", 40), ("a", "test", 9)], "all labels are 'a', and one class is nothing to tell apart"),
        ([("a", "train", 9), ("b", "train", 9), ("a", "test", 5), ("b", "test", 5)],
         "28 labelled clips are too few to tell encoders apart; 40 is the least"),
        ([("a", "train", 40), ("b", "train", 40), ("a", "test", 9)],
         "the test part has fewer than two classes, as groups must stay whole"),
        ([("a;b", "train", 40), ("b", "train", 40), ("a", "test", 9), ("b", "test", 9)],
         "some clips have several labels, and a verdict is for one label a clip"),
        ([("a", "train", 40), ("b", "train", 40), ("a", "test", 9), ("b", "test", 9)], None),
    ],
)  # fmt: skip
def test_what_cannot_be_judged(given: list[tuple[str, str | None, int]], problem: str | None) -> None:
    listed = clips(*given)
    split = [
        m2dx.Clip(c.path, 0, 1, tuple("".join(c.labels).split(";")) if c.labels else (), c.split, c.group)
        for c in listed
    ]
    assert Parts.of(split).problem == problem


@pytest.mark.parametrize(
    ("splits", "valid", "test"),
    [
        (("train", "test"), 20, 80),  # a quarter of the training part
        (("train", "valid", "test"), 80, 80),  # as given
        (("1", "2", "3", "4", "5"), 60, 160),  # the last two folds, a quarter of the others
    ],
)
def test_parts_of_divisions(splits: tuple[str, ...], valid: int, test: int) -> None:
    listed = clips(*[(label, split, 40) for label in "ab" for split in splits])
    parts = Parts.of(listed)
    assert (len(parts.valid), len(parts.test)) == (valid, test)
    groups = [{clip.group for clip in part} for part in (parts.train, parts.valid, parts.test)]
    assert not groups[0] & groups[1] and not (groups[0] | groups[1]) & groups[2]


def test_the_loss_is_of_the_probability_of_the_truth() -> None:
    clip = m2dx.Clip(Path("a.wav"), labels=("a",))
    said = [m2dx.Prediction(clip, "a", 0.8, (0.8, 0.2)), m2dx.Prediction(clip, "b", 0.8, (0.2, 0.8))]
    score = m2dx.Score("t", "accuracy", 0.5, None, (0.5,), "logistic", predictions=tuple(said))
    assert loss_of(score) == pytest.approx((0.223144 + 1.609438) / 2, abs=1e-5)
