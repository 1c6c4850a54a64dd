"""The verdict: what the intervals of a test mean in words, and when there can be none."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from m2dx_specialise.judge import (
    PLAIN,
    RANDOM,
    Comparison,
    Gain,
    choose,
    decide,
    easier,
    from_labels,
    guessed,
    loss_of,
    of_classifier,
    score,
)
from m2dx_specialise.parts import Parts, _some, unit_seconds

import m2dx
from m2dx.contract.components import Fold, Prediction
from m2dx.evaluation.logistic import Logistic

LEVEL, UP, DOWN = Gain(0.5, -1.9, 2.2), Gain(6.1, 3.0, 9.2), Gain(-4.0, -7.0, -1.0)
MORE, LESS = Gain(8.0, 5.0, 11.0), Gain(-5.0, -9.0, -1.0)
FROM_0, TO_0 = Gain(3.0, 0.0, 6.0), Gain(-3.0, -6.0, 0.0)
START = "starter"
OPEN = " But the test is too small to rule out gains of up to {:.1f} points: label clips of more groups, and ask again."
USE = "Use starter as it is: +6.1 points (95 %: 3.0 to 9.2) over log-mel statistics; "
NOT, LEVEL_BESIDE = "Do not pre-train: ", "training is level (-1.9 to +2.2 points) beside "
OF_PLAIN = "log-mel statistics with logistic regression are "


@pytest.mark.parametrize(
    ("plain", "random", "start", "above_plain", "above_random", "kind", "sentence"),
    [
        # the winner above log-mel statistics, the random network and the start; the start above the first two
        (UP, MORE, MORE, LEVEL, LEVEL, "specialise", "Specialise: +6.1 points (95 %: 3.0 to 9.2) over the best of what "
         "you have (log-mel statistics), from 100 labels on."),
        (MORE, MORE, UP, UP, UP, "specialise", "Specialise: +6.1 points (95 %: 3.0 to 9.2) over the best of what you "
         "have (starter), from 100 labels on."),
        (MORE, UP, MORE, LEVEL, DOWN, "specialise", "Specialise: +6.1 points (95 %: 3.0 to 9.2) over the best of what "
         "you have (random network), from 100 labels on."),
        # beyond the start, which validation takes for the best, but not beyond what the test shows to be better
        (LEVEL, UP, UP, LEVEL, LEVEL, "plain", NOT + OF_PLAIN + "level (-1.9 to +2.2)."),
        (DOWN, UP, UP, DOWN, UP, "plain", NOT + OF_PLAIN + "better by 4.0 points (+1.0 to +7.0)."),
        (UP, LEVEL, UP, LEVEL, LEVEL, "plain", NOT + LEVEL_BESIDE + "random network, and starter is level with log-mel "
         "statistics (-1.9 to +2.2 points)."),
        # the random network is ahead of the start, but not beyond log-mel statistics as the start is
        (UP, LEVEL, UP, UP, DOWN, "use", USE + LEVEL_BESIDE + "random network, and starter is behind random network "
         "(-7.0 to -1.0 points), which is not beyond log-mel statistics."),
        (UP, LEVEL, UP, UP, LEVEL, "use", USE + LEVEL_BESIDE + "random network."),
        # the most accurate is beaten, but another one, with a wider interval, is not
        (UP, MORE, Gain(7.0, -0.1, 14.0), LEVEL, LEVEL, "plain", NOT + "training is level (-0.1 to +14.0 points) "
         "beside starter, which is level with log-mel statistics (-1.9 to +2.2 points)."),
        # a wide interval that ends above 10 points leaves much open
        (MORE, MORE, Gain(7.0, -0.1, 14.0), UP, UP, "use", USE + "training is level (-0.1 to +14.0 points) beside "
         "starter." + OPEN.format(11)),
        (LESS, UP, UP, Gain(9.0, -2.0, 20.0), UP, "plain", NOT + OF_PLAIN + "better by 5.0 points (+1.0 to +9.0)."
         + OPEN.format(20)),
        # intervals that touch 0 are level
        (MORE, MORE, FROM_0, UP, UP, "use", USE + "training is level (+0.0 to +6.0 points) beside starter."),
        (MORE, MORE, TO_0, UP, UP, "use", USE + "training is level (-6.0 to +0.0 points) beside starter."),
        (MORE, MORE, LEVEL, FROM_0, UP, "plain", NOT + LEVEL_BESIDE + "starter, which is level with log-mel statistics "
         "(+0.0 to +6.0 points)."),
        (MORE, MORE, LEVEL, UP, TO_0, "use", USE + LEVEL_BESIDE + "starter."),
        (TO_0, MORE, MORE, LEVEL, LEVEL, "plain", NOT + OF_PLAIN + "level (-6.0 to +0.0)."),
        # training loses
        (UP, UP, DOWN, UP, UP, "use", USE + "training loses (-7.0 to -1.0 points) beside starter."),
        (DOWN, DOWN, LESS, DOWN, UP, "plain", NOT + "training loses (-9.0 to -1.0 points) beside starter, which is "
         "behind log-mel statistics (-7.0 to -1.0 points)."),
        # nothing was trained: the winner is what was there
        (None, None, None, UP, UP, "use", USE + "nothing could be trained in the time."),
        (None, None, None, LEVEL, UP, "plain", "Use log-mel statistics with logistic regression: nothing could be "
         "trained in the time, and starter is level with log-mel statistics (-1.9 to +2.2 points)."),
        (None, None, None, DOWN, UP, "plain", "Use log-mel statistics with logistic regression: nothing could be "
         "trained in the time, and starter is behind log-mel statistics (-7.0 to -1.0 points)."),
    ],
)  # fmt: skip
def test_the_verdict_in_words(
    plain: Gain | None,
    random: Gain | None,
    start: Gain | None,
    above_plain: Gain,
    above_random: Gain,
    kind: str,
    sentence: str,
) -> None:
    gains = {name: of for name, of in ((PLAIN, plain), (RANDOM, random), (START, start)) if of is not None}
    verdict = decide(gains, START, {PLAIN: above_plain, RANDOM: above_random}, LEVEL, labels=100)
    assert (verdict.kind, verdict.sentence) == (kind, sentence)


@pytest.mark.parametrize(
    ("trained", "above_plain", "above_random", "untrained", "kind", "sentence"),
    [
        (DOWN, UP, DOWN, MORE, "random", "Use random network as it is: +8.0 points (95 %: 5.0 to 11.0) over log-mel "
         "statistics; training loses (-7.0 to -1.0 points) beside random network, and starter is behind random network "
         "(-7.0 to -1.0 points)."),
        (DOWN, LEVEL, DOWN, UP, "random", "Use random network as it is: +6.1 points (95 %: 3.0 to 9.2) over log-mel "
         "statistics; training loses (-7.0 to -1.0 points) beside random network, and starter is behind random network "
         "(-7.0 to -1.0 points)."),
        (None, LEVEL, DOWN, UP, "random", "Use random network as it is: +6.1 points (95 %: 3.0 to 9.2) over log-mel "
         "statistics; nothing could be trained in the time, and starter is behind random network (-7.0 to -1.0 "
         "points)."),
        (UP, UP, DOWN, MORE, "specialise", "Specialise: +6.1 points (95 %: 3.0 to 9.2) over the best of what you have "
         "(random network)."),
        (DOWN, UP, TO_0, MORE, "random", "Use random network as it is: +8.0 points (95 %: 5.0 to 11.0) over log-mel "
         "statistics; training loses (-7.0 to -1.0 points) beside random network, and starter is behind training "
         "(-11.0 to -5.0 points)."),
        (DOWN, UP, TO_0, LEVEL, "use", USE + "training loses (-7.0 to -1.0 points) beside random network."),
        (DOWN, LEVEL, LEVEL, UP, "random", "Use random network as it is: +6.1 points (95 %: 3.0 to 9.2) over log-mel "
         "statistics; training loses (-7.0 to -1.0 points) beside random network, and starter is level with log-mel "
         "statistics (-1.9 to +2.2 points)."),
        (DOWN, LEVEL, DOWN, Gain(3.0, -2.0, 11.0), "plain", NOT + "training loses (-7.0 to -1.0 points) beside random "
         "network, and starter is behind random network (-7.0 to -1.0 points)." + OPEN.format(11)),
    ],
)  # fmt: skip
def test_a_network_that_nobody_trained_may_be_the_best(
    trained: Gain | None, above_plain: Gain, above_random: Gain, untrained: Gain, kind: str, sentence: str
) -> None:
    gains = {} if trained is None else {PLAIN: MORE, RANDOM: trained, START: MORE}
    verdict = decide(gains, START, {PLAIN: above_plain, RANDOM: above_random}, untrained)
    assert (verdict.kind, verdict.sentence) == (kind, sentence)


@pytest.mark.parametrize(
    "gains", [(MORE, DOWN, LEVEL), (DOWN, DOWN, MORE)]
)  # behind what log-mel statistics beat
def test_a_start_that_training_is_not_to_be_preferred_to_is_of_use_beside_a_random_network(
    gains: tuple[Gain, Gain, Gain],
) -> None:
    found = dict(zip((PLAIN, RANDOM, START), gains, strict=True))
    assert decide(found, START, {PLAIN: UP, RANDOM: TO_0}, MORE).kind == "use"


def test_many_folds_take_no_time() -> None:
    listed = [
        m2dx.Clip(Path(f"{n}.wav"), 0.0, 1.0, ("ab"[n % 2],), f"subject {n % 40}", f"{n % 40}")
        for n in range(400)
    ]
    parts = Parts.of(listed)
    assert len({clip.split for clip in parts.test}) == 16 and parts.problem is None


def test_a_clip_counts_the_same_in_folds_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [m2dx.Clip(Path(f"{i}"), labels=("a",), split="1" if i < 20 else "2") for i in range(25)]

    def scored(right: range) -> m2dx.Score:
        items = [Prediction(clip, "a" if i in right else "b", 0.9) for i, clip in enumerate(clips)]
        given = m2dx.Score("", "accuracy", 0.0, 0.1, (0.0, 0.0), "logistic", predictions=tuple(items))
        monkeypatch.setattr(Logistic, "evaluate", lambda *_, **__: [given])
        return score(None, None, "")  # type: ignore[arg-type]

    own, rival = scored(range(15, 25)), scored(range(15))  # all of the small fold, but less than half of all
    assert (own.mean, rival.mean) == (10 / 25, 15 / 25)
    assert Comparison.of(own, rival).gain.value == pytest.approx(-20.0)


def test_without_a_number_of_labels_none_is_said() -> None:
    told = decide({START: UP}, START, {PLAIN: UP, RANDOM: UP}, UP).sentence
    assert told.endswith("over the best of what you have (starter).")


@pytest.mark.parametrize(
    ("won", "lost", "same", "apart"),
    [
        (5, 0, 5, False),  # of ten clips; a coin does as much in one of sixteen
        (5, 0, 95, False),
        (6, 0, 94, True),
        (7, 1, 92, False),
        (9, 1, 90, True),
        (0, 6, 14, True),
        (0, 5, 15, False),
        (0, 0, 10, False),
    ],
)
def test_few_clips_are_no_gain(won: int, lost: int, same: int, apart: bool) -> None:
    clips = [m2dx.Clip(Path(f"{i}.wav"), labels=("a",), split="test") for i in range(won + lost + same)]

    def score(right: list[bool]) -> m2dx.Score:
        said = [m2dx.Prediction(c, "a" if of else "b", 0.9, None) for c, of in zip(clips, right, strict=True)]
        mean = sum(right) / len(right)
        return m2dx.Score("t", "accuracy", mean, None, (mean,), "logistic", predictions=tuple(said))

    own = [True] * won + [False] * lost + [True] * same
    rival = [False] * won + [True] * lost + [True] * same
    gain = Gain.of(score(own), score(rival))
    assert (gain.low > 0 or gain.high < 0) is apart and gain.low <= gain.value <= gain.high


def scores_by_group(*gains: tuple[int, int]) -> tuple[m2dx.Score, m2dx.Score]:
    """Two scores on groups of 50 clips; in each, so many clips only the first has right, and only the second."""
    said: list[list[m2dx.Prediction]] = [[], []]
    for group, (won, lost) in enumerate(gains):
        for n in range(50):
            clip = m2dx.Clip(Path(f"{group}-{n}.wav"), labels=("a",), split="test", group=f"{group}")
            rights = n < won or n >= won + lost, n >= won
            for of, right in zip(said, rights, strict=True):
                of.append(m2dx.Prediction(clip, "a" if right else "b", 0.9, None))
    return tuple(  # type: ignore[return-value]
        m2dx.Score("t", "accuracy", 0.5, None, (0.5,), "logistic", predictions=tuple(of)) for of in said
    )


@pytest.mark.parametrize(
    ("gains", "for_others", "apart"),
    [
        ([(15, 0)], False, True),
        ([(15, 0)], True, False),  # one patient tells nothing of others
        ([(15, 0), (12, 0)], True, False),
        ([(15, 0), (12, 0), (14, 0)], True, True),
        ([(15, 0), (2, 0), (9, 0)], False, True),
        ([(15, 0), (2, 0), (9, 0)], True, False),
        ([(15, 0), (2, 0), (9, 0)] * 2, True, True),
        ([(0, 15), (0, 2), (0, 9)], True, False),
        ([(0, 15), (0, 12), (0, 14)], True, True),
    ],
)
def test_few_groups_are_no_gain_for_others(
    gains: list[tuple[int, int]], for_others: bool, apart: bool
) -> None:
    gain = Gain.of(*scores_by_group(*gains), for_others=for_others)
    assert (gain.low > 0 or gain.high < 0) is apart and gain.low <= gain.value <= gain.high


def test_the_same_answers_to_few_clips_leave_much_open() -> None:
    few, many = (Gain.of(*scores_by_group(*[(0, 0)] * groups)) for groups in (1, 20))
    assert few.low == -few.high and 7 < few.high < 8 and 0 < many.high < 0.5


@pytest.mark.parametrize(
    ("valid", "test", "clips", "told"),
    [
        (1.0, 0.66, 80, True),
        (0.8, 0.7, 80, False),
        (0.5, 0.9, 80, False),
        (1.0, 0.66, 5, False),  # which may be chance
        (0.78, 0.4, 9, False),
    ],
)
def test_a_validation_part_that_is_easier_is_told(valid: float, test: float, clips: int, told: bool) -> None:
    text = easier("starter", valid, test, (clips, clips))
    assert bool(text) == told and (not told or "(starter: 100 against 66 % right)" in text)


@pytest.mark.parametrize(("right", "told"), [(40, False), (36, False), (33, True), (5, True)])
def test_a_classifier_that_guesses_is_told(right: int, told: bool) -> None:
    """30 clips of 60 have the label "a"; the interval is of 7 clips, but all that say more than "a" may be right."""
    said = []
    for n in range(60):
        label = "abc"[0 if n < 30 else 1 + n % 2]
        clip = m2dx.Clip(Path(f"{n}.wav"), labels=(label,), split="test")
        said.append(m2dx.Prediction(clip, label if n < right else "x", 0.9, None))
    found = m2dx.Score("t", "accuracy", right / 60, 7 / 60, (), "logistic", predictions=tuple(said))
    assert guessed(found).startswith("A classifier that says 'a' of every clip has 50 % right") == told


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
         "the test part has fewer than two classes: 'b' is of 10 groups, and groups must stay whole"),
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
    parts = Parts.of(split)
    assert parts.problem == problem
    if problem is None:
        one = replace(parts, train=tuple(replace(clip, group="one") for clip in parts.train))
        assert one.problem == "the training part is of one group, and two are the least; 4 in all would do"


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


@pytest.mark.parametrize(
    ("splits", "clips_per_group", "is_crossed"),
    [
        (("1", "2", "3", "4", "5"), 1, True),
        (("train", "valid", "test"), 1, False),  # 80 groups are tested
        (("train", "valid", "test"), 8, True),
        (("train", "train", "train", "train", "valid", "test"), 8, False),  # too few to train on
    ],
)
def test_where_a_test_says_little_both_parts_are_tested(
    splits: tuple[str, ...], clips_per_group: int, is_crossed: bool
) -> None:
    listed = [
        m2dx.Clip(Path(f"{n}.wav"), 0.0, 1.0, ("ab"[n % 2],), split, f"{split} {n // clips_per_group}")
        for split in set(splits)
        for n in range(80 * splits.count(split))
    ]
    parts = Parts.of(listed)
    other = parts.crossed
    assert (other is not None) == is_crossed
    if other is not None:
        assert (other.train, other.valid, other.test) == (parts.test, parts.valid, parts.train)
        rare = tuple(
            replace(clip, labels=("c",)) for clip in parts.train[:6]
        )  # which nobody would be fitted to
        other = replace(parts, train=(*rare, *parts.train[6:])).crossed
        assert other is not None and other.test == parts.train[6:]
        chosen_by = replace(
            parts, train=(*rare, *parts.train[6:]), valid=(*rare[:2], *parts.valid[2:])
        ).crossed
        assert chosen_by is not None and len(chosen_by.test) == len(parts.train) - (0 if parts.folds else 6)


@pytest.mark.parametrize("groups", [3, 4])
def test_groups_of_one_class_each_are_in_all_parts(groups: int) -> None:
    """Twenty clips of each of a few patients, who are ill or not."""
    own = [(label, number) for label in "ab" for number in range(groups)]
    listed = [
        m2dx.Clip(Path(f"{label}{number}-{n}.wav"), 0.0, 1.0, (label,), None, f"{label}{number}")
        for label, number in own
        for n in range(20)
    ]
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(own)).tolist()
        fold_of = {f"{own[row][0]}{own[row][1]}": str(at % 5 + 1) for at, row in enumerate(order)}
        parts = Parts.of([replace(clip, split=fold_of[str(clip.group)]) for clip in listed])
        assert parts.problem is None


def test_the_loss_is_of_the_probability_of_the_truth() -> None:
    clip = m2dx.Clip(Path("a.wav"), labels=("a",))
    said = [m2dx.Prediction(clip, "a", 0.8, (0.8, 0.2)), m2dx.Prediction(clip, "b", 0.8, (0.2, 0.8))]
    score = m2dx.Score("t", "accuracy", 0.5, None, (0.5,), "logistic", predictions=tuple(said))
    assert loss_of(score, ("a", "b")) == pytest.approx((0.223144 + 1.609438) / 2, abs=1e-5)


def test_settings_are_those_of_a_classifier_of_all_training_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[Any]()
    monkeypatch.setattr(Logistic, "chosen", lambda self, task, found, *rows: seen.extend(rows) or self)
    fold = Fold("test", *(np.array(rows) for rows in ([0, 3], [1], [2, 4])))
    choice: Any = SimpleNamespace(folds=(fold,), features=lambda encoder: None)
    assert choose(None, choice).keys() == {"c", "layers", "whiten"}  # type: ignore[arg-type]
    assert [rows.tolist() for rows in seen] == [[0, 1, 3], [2, 4]]


def test_a_candidate_is_not_judged_by_its_frozen_patch_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Logistic, "chosen", lambda self, task, found, *rows: self)
    fold = Fold("test", *(np.array(rows) for rows in ([0], [1], [2])))
    choice: Any = SimpleNamespace(
        folds=(fold,), features=lambda of: SimpleNamespace(layers=dict.fromkeys((0, 2, 4)))
    )
    encoder: Any = None
    assert choose(encoder, choice)["layers"] == "best"
    assert choose(encoder, choice, trained=True)["layers"] == (2, 4)


@pytest.mark.parametrize(("splits", "tested"), [(("train", "test"), 80), (("1", "2", "3", "4", "5"), 400)])
def test_encoders_at_hand_are_compared_on_all_folds(splits: tuple[str, ...], tested: int) -> None:
    listed = clips(*[(label, split, 40) for label in "ab" for split in splits])
    parts = Parts.of(listed)
    used = tuple(replace(of, split="test" if of in parts.test else "train") for of in parts.labelled)
    rows = [np.array([row for row, of in enumerate(used) if of.split == part]) for part in ("train", "test")]
    task = m2dx.ClipTask("test", used, ("a", "b"), (Fold("test", rows[0], rows[0][:0], rows[1]),), 1.0, "pad")
    found = parts.in_turn(task)
    once = np.concatenate([fold.test for fold in found.folds])
    assert len(once) == len(set(once.tolist())) == tested
    for fold in found.folds if tested == 400 else ():
        assert {found.clips[row].split for row in fold.test} == {fold.name}
        assert len(fold.train) == 320 and not set(fold.train) & set(fold.test)


def test_what_is_trained_twice_is_tested_on_each_clip_by_the_training_that_has_not_heard_it() -> None:
    listed = [
        m2dx.Clip(Path(f"{n}.wav"), 0.0, 1.0, ("ab"[n % 2],), split, f"{split} {n // 8}")
        for split in ("train", "valid", "test")
        for n in range(80)
    ]
    listed = [replace(clip, path=Path(f"{clip.split}{clip.path}")) for clip in listed]
    parts = Parts.of(listed)
    used = tuple(replace(of, split="test" if of in parts.test else "train") for of in parts.labelled)
    rows = [np.array([row for row, of in enumerate(used) if of.split == part]) for part in ("train", "test")]
    task = m2dx.ClipTask("test", used, ("a", "b"), (Fold("test", rows[0], rows[0][:0], rows[1]),), 1.0, "pad")
    back = parts.back(task)
    assert back is not None and [fold.name for fold in parts.in_turn(task).folds] == ["test", "back"]
    by_part = [{used[row].path for row in part} for part in (back.train, back.valid, back.test)]
    assert by_part == [{clip.path for clip in part} for part in (parts.test, parts.valid, parts.train)]
    assert back.fitted.tolist() == back.train.tolist()  # the validation part only chooses


@pytest.mark.parametrize(
    ("accuracy", "ci95", "told"),
    [
        (0.8, 0.12, "80.0 ± 12.0 % of 40 clips are right"),
        (1.0, 0.0, "100.0 % (95 %: 91 or more) of 40"),
        (0.0, 0.0, "0.0 % (95 %: 9 or less) of 40"),
        (1.0, None, "100.0 % of 40"),
    ],
)
def test_all_right_is_no_certainty(accuracy: float, ci95: float | None, told: str) -> None:
    found = {"encoder": PLAIN, "accuracy": accuracy, "ci95": ci95, "clips": 40}
    assert told in of_classifier({"classifier": found, "verdict": {"kind": "plain"}})


@pytest.mark.parametrize(
    ("durations", "unit"),
    [
        ((1.0, 2.0, 3.0), 2.0),
        ((0.01,) * 3, 0.1),
        ((2.0, 2.0, 62.0), 4.667),  # a few long ones count as 10 s
        ((20.0, 40.0, 300.0), 33.333),  # where most are long, as much as the middle one has
        ((300.0, 400.0), 60.0),
    ],
)
def test_clips_are_brought_to_a_length_that_most_of_them_have(
    durations: tuple[float, ...], unit: float
) -> None:
    assert unit_seconds([m2dx.Clip(Path("a.wav"), duration=seconds) for seconds in durations]) == unit


def test_of_long_clips_fewer_are_scored() -> None:
    def scored(seconds: float) -> int:
        clips = (
            m2dx.Clip(Path(f"{row}.wav"), duration=seconds, labels=("ab"[row % 2],)) for row in range(7_000)
        )
        return len(_some(tuple(clips), unit_seconds([m2dx.Clip(Path("a"), duration=seconds)]), 0))

    assert [scored(seconds) for seconds in (1.0, 10.0, 40.0)] == [6_000, 6_000, 1_500]
