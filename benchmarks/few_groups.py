"""How often the interval of a gain is beyond chance where there is none, and where there is one, by the groups tested.

    python benchmarks/few_groups.py [--tests 250] [--json OUT]

Each test has clips of a few groups (patients), of which one encoder has 15 % right that the other has wrong, and so the
other way round; a group's own gain is drawn around 0. In 2.5 % of the tests the interval may lie above 0. The second
table has a gain, or none, that differs from training to training, too: in one test of one training, and in two tests of
one each, in which training and test part change places.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import timing
from m2dx_specialise.judge import Gain
from numpy.typing import NDArray

import m2dx

APART = 0.15
"""Of the clips, those that only one of the two has right, each."""
TESTS = ((1, 300), (2, 400), (3, 600), (6, 600), (10, 900), (15, 900))
"""Groups and clips."""
LUCK = 0.02
"""Standard deviation of the gain between trainings."""


def score(clips: list[m2dx.Clip], right: NDArray[np.bool_]) -> m2dx.Score:
    """Of an encoder that has these clips right."""
    said = [m2dx.Prediction(clip, "ab"[not of], 0.9, None) for clip, of in zip(clips, right, strict=True)]
    mean = float(right.mean())
    return m2dx.Score("test", "accuracy", mean, None, (mean,), "logistic", predictions=tuple(said))


def share_above(
    groups: int, count: int, spread: float, tests: int, *, gain: float = 0.0, luck: float = 0.0, runs: int = 1
) -> dict[str, float]:
    """Share of the tests whose interval is above 0: the bootstrap's, and that for other groups.

    The gain is that of the mean training, of which each has an equal share of the groups.
    """
    clips = [m2dx.Clip(Path(f"{n}.wav"), labels=("a",), group=f"{n % groups}") for n in range(count)]
    random, above = np.random.default_rng(0), {"bootstrap": 0, "for others": 0}
    for _ in range(tests):
        of_run = random.normal(gain, luck, runs)[np.arange(groups) % runs]
        of_group = np.clip(random.normal(of_run, spread), -2 * APART, 2 * APART)
        apart, drawn = of_group[np.arange(count) % groups], random.random(count)
        own, rival = drawn < APART + apart / 2, drawn > 1 - APART + apart / 2
        pair = score(clips, ~rival), score(clips, ~own)
        for name, for_others in (("bootstrap", False), ("for others", True)):
            above[name] += Gain.of(*pair, for_others=for_others).low > 0
    return {name: round(100 * number / tests, 1) for name, number in above.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = timing.options_of(__doc__, recipe_fields=False)
    parser.add_argument("--tests", type=timing.at_least(1), default=250)
    options = parser.parse_args(arguments)

    def measure() -> timing.Tables:
        return {
            "Tests above chance without a gain, %": [
                {"points between groups": 100 * spread, "groups": groups, "clips": count}
                | share_above(groups, count, spread, options.tests)
                for spread in (0.05, 0.1)
                for groups, count in TESTS
            ],
            "Tests above chance of one training and of two, %": [
                {"gain": 100 * gain, "points between groups": 100 * spread, "groups": groups}
                | {
                    name: share_above(
                        runs * groups,
                        100 * runs * groups,
                        spread,
                        options.tests,
                        gain=gain,
                        luck=LUCK,
                        runs=runs,
                    )["for others"]
                    for name, runs in (("one", 1), ("two", 2))
                }
                for gain in (0.0, 0.1)
                for spread in (0.05, 0.1)
                for groups in (2, 3, 6, 10)
            ],
        }

    return timing.give(options, measure)


if __name__ == "__main__":
    sys.exit(main())
