"""Rungs of a search: how many candidates train for how many steps, so that all ends within the time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHARE = 3  # of the candidates of a rung, one in so many goes on, for so many times the steps
FEWEST_STEPS = 100  # of a candidate in the first rung; with fewer, nothing could be told
MOST_STEPS = 300_000


@dataclass(frozen=True)
class Rung:
    """Candidates that train side by side, each from its start."""

    count: int  # candidates
    steps: Mapping[str, int]  # of each candidate that may be in it


@dataclass(frozen=True)
class Budget:
    """What fits into the time."""

    rungs: tuple[Rung, ...]  # none: nothing fits
    dropped: tuple[str, ...] = ()  # candidates for which there is no time, the last of the list first


def sizes(candidates: int) -> tuple[int, ...]:
    """Candidates of each rung, down to one."""
    found = [candidates]
    while found[-1] > 1:
        found.append(-(-found[-1] // SHARE))
    return tuple(found)


def divide_time(
    costs: Mapping[str, float], seconds: float, *, overhead: float, again: bool = False
) -> Budget:
    """Divides seconds among candidates, whose seconds per step are given, the most promising one first.

    Each run costs `overhead` seconds beside its steps. In a rung all have the same time, whatever their steps cost, and
    in the next one, `SHARE` times as much; `again` leaves time to train one of the last rung once more. Where the first
    rung would be too short, the last candidate is dropped, or one that alone is too slow.
    """
    names, dropped = list(costs), list[str]()
    while names:
        counts = sizes(len(names))
        share = share_of(seconds, counts, overhead=overhead, again=again)
        slow = [name for name in names if share < FEWEST_STEPS * costs[name]]
        if not slow:
            rungs = (
                Rung(count, {name: steps(share * SHARE**rung / costs[name]) for name in names})
                for rung, count in enumerate(counts)
            )
            return Budget(tuple(rungs), tuple(dropped))
        gone = max(slow, key=costs.__getitem__) if len(slow) < len(names) else names[-1]
        names.remove(gone)
        dropped.append(gone)
    return Budget((), tuple(dropped))


def share_of(seconds: float, counts: Sequence[int], *, overhead: float, again: bool = False) -> float:
    """Seconds that each candidate has in the first of rungs of so many, where all of them take the seconds."""
    runs = [*counts[:-1], counts[-1] + again]
    weight: int = sum(count * SHARE**rung for rung, count in enumerate(runs))
    return (seconds - overhead * sum(runs)) / weight


def steps(count: float) -> int:
    """A number of steps with two digits, at most `MOST_STEPS`, so that a little time more or less changes nothing."""
    count = min(count, MOST_STEPS)
    unit = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return max(int(count // unit * unit), 1)
