"""Candidates in rungs: who is trained for how many steps, so that all ends within the time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from rich.console import Console

import m2dx
from m2dx.contract.wording import counted
from m2dx_specialise.budget import FEWEST_STEPS, SHARE, divide_time, share_of, sizes, steps
from m2dx_specialise.candidates import Candidate, Setting
from m2dx_specialise.encoders import Scorer, scored
from m2dx_specialise.judge import best_of, rank
from m2dx_specialise.state import State
from m2dx_specialise.training import train, trial

RUN_SECONDS, END_SECONDS = 6.0, 20.0
"""Beside steps and scoring: of a run, for lists, workers and export; of the end, for classifier and page."""
SAFETY = 0.9  # share of the time that is planned with
ENOUGH = 0.7  # share of a run's time that must be left to train it once more


@dataclass(frozen=True, eq=False)
class Rungs:
    """The trainings of a search."""

    state: State
    host: m2dx.PluginHost
    console: Console
    setting: Setting
    again: bool = False  # whether the best run is to be trained once more, where there is time for it

    def best(self, candidates: Sequence[Candidate], score: Scorer) -> str | None:
        """Trains the candidates; the best run, or None where there is no time for any.

        What the runs of a rung have really cost corrects the plan: candidates that it has dropped join the first rung
        where there is time for them after all, and the steps of the next one follow from the time that is left.
        """
        by_name, state = {candidate.name: candidate for candidate in candidates}, self.state
        budget = state.once("budget", lambda: self._measured(candidates))
        waiting = [by_name[name] for name in budget["dropped"]]
        if waiting:
            self.console.print(f"no time for: {'; '.join(candidate.title for candidate in waiting)}")
        if waiting and not budget["rungs"]:
            self.console.print(
                f"to train one of them needs --minutes {budget['enough']} or more, on this machine"
            )
        rungs, first, found = len(budget["rungs"]), 0, dict[str, dict[str, Any]]()
        for number, rung in enumerate(budget["rungs"], 1):
            counts = rung["steps"]
            if number > 1:
                left = sizes(first)[number - 1 : rungs]
                counts = state.once(f"steps:{number}", partial(self._next_steps, found, left))
            if not counts:
                self.console.print(f"no time for rung {number}")
                continue
            self.console.print(f"rung {number} of {rungs}: {counted(len(counts), 'candidate')}")
            found = {name: self._run(by_name[name], count, score) for name, count in counts.items()}
            for candidate in waiting if number == 1 else ():
                join = partial(self._joins, candidate, list(found.values()), rungs)
                if count := state.once(f"joins:{candidate.name}", join):
                    found[candidate.name] = self._run(candidate, count, score)
            first = first or len(found)
            found = dict(sorted(found.items(), key=lambda of: rank(of[1]), reverse=True))
            state.save(**{f"order:{number}": [f"{name}-{of['steps']}" for name, of in found.items()]})
        return best_of(state.under("run")) if budget["rungs"] else None

    def _run(self, candidate: Candidate, steps: int, score: Scorer) -> dict[str, Any]:
        """A candidate, trained for so many steps and scored."""
        tried = self.state.under("trial").get(candidate.name, {"seconds": 1.0})
        train_it = partial(self._trained, candidate, steps, score, tried["seconds"])
        found: dict[str, Any] = self.state.once(f"run:{candidate.name}-{steps}", train_it)
        self.console.print(f"  {candidate.title:<34} {steps:>6,} steps {100 * found['accuracy']:5.1f} %")
        return found

    def once_more(
        self, name: str, candidates: Sequence[Candidate], setting: Setting, score: Scorer
    ) -> dict[str, Any] | None:
        """A run, trained for as many steps in another setting; None: there is no time for it."""
        run, other = self.state.get(f"run:{name}"), replace(self, setting=setting)

        def count() -> int:  # a little late is better than half of the test
            needed = run["train_seconds"] + self._overhead()
            return int(run["steps"]) if self._left() > ENOUGH * needed else 0

        if not (steps := self.state.once("steps:again", count)):
            return None
        candidate = next(of for of in candidates if name == f"{of.name}-{steps}")
        again = replace(candidate, name=f"{candidate.name}_again")
        found = other._trained(again, steps, score, run["train_seconds"] / steps)
        return {"name": f"{again.name}-{steps}", **found}

    def _measured(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """The time, divided among the candidates whose steps are measured: as many as there may be time for."""
        costs = dict[str, float]()
        for candidate in candidates:
            as_cheap = {**costs, candidate.name: min(costs.values(), default=1e-6)}
            if costs and candidate.name in self.divided(as_cheap)["dropped"]:
                break
            with self.console.status(f"measuring a step: {candidate.title}"):
                tried = self.state.once(f"trial:{candidate.name}", partial(self.tried, candidate))
            costs[candidate.name] = tried["seconds"]
        budget = self.divided(costs)
        in_it = {name for rung in budget["rungs"][:1] for name in rung["steps"]}
        dropped = [candidate.name for candidate in candidates if candidate.name not in in_it]
        lacking = self._overhead() + FEWEST_STEPS * min(costs.values()) - self._left()
        enough = math.ceil(self.state.request.minutes + lacking / SAFETY / 60)
        return {**budget, "dropped": dropped, "enough": enough}

    def divided(self, costs: Mapping[str, float]) -> dict[str, Any]:
        """The time that is left, divided among candidates with their seconds per step; as plain data."""
        left = self._left()
        for again in dict.fromkeys((self.again, False)):  # a training that is tested once is better than none
            budget = divide_time(costs, left, overhead=self._overhead(), again=again)
            if budget.rungs:
                break
        return {"seconds": round(left), "again": again and bool(budget.rungs), **asdict(budget)}

    def _overhead(self) -> float:
        """Seconds of a run beside its steps."""
        return RUN_SECONDS + max(float(found["seconds"]) for found in self.state.under("baseline").values())

    def _left(self) -> float:
        """Seconds for runs: what is left without the test of the baselines and of the winner, and the classifier's.

        On all folds in turn three encoders are scored (the best start and random network, the classifier's own), and
        log-mel statistics, which are the cheapest, twice.
        """
        scored = self.state.under("baseline").values()
        once, in_turn = ([float(found.get(key, 0.0)) for found in scored] for key in ("seconds", "in_turn"))
        test = sum(once) + (2 + self.again) * max(once) + 3 * max(in_turn) + 2 * min(in_turn)
        return SAFETY * (60 * self.state.request.minutes - self.state.seconds) - END_SECONDS - test

    def _joins(self, candidate: Candidate, found: Sequence[Mapping[str, Any]], rungs: int) -> int:
        """Steps with which a candidate that was dropped has the same time as those of the first rung have taken.

        0: there is no time for it beside the rungs that are to come.
        """
        took, overhead = fmean(run["train_seconds"] for run in found), self._overhead()
        counts = [1, *sizes(len(found) + 1)[1:rungs]]
        counts[-1] += self.state.get("budget")["again"]
        needed = sum(count * (took * SHARE**rung + overhead) for rung, count in enumerate(counts))
        if self._left() < needed:
            return 0
        tried = self.tried(candidate)
        self.state.save(**{f"trial:{candidate.name}": tried})
        count = steps(took / tried["seconds"])
        return count if count >= FEWEST_STEPS else 0

    def _next_steps(self, found: Mapping[str, Mapping[str, Any]], counts: Sequence[int]) -> dict[str, int]:
        """Steps of the best in the next of rungs of so many; of those that have more than before, be it none."""
        again = self.state.get("budget")["again"]
        share = share_of(self._left(), counts, overhead=self._overhead(), again=again)
        best = list(found.items())[: counts[0]]
        more = {name: steps(share * run["steps"] / run["train_seconds"]) for name, run in best}
        return {name: count for name, count in more.items() if count > found[name]["steps"]}

    def tried(self, candidate: Candidate) -> dict[str, Any]:
        """What a step of a candidate costs, and the statistics of its input."""
        return {**trial(self._recipe(candidate, 1000), self.host), "input": candidate.input(self.setting)}

    def _recipe(self, candidate: Candidate, steps: int, **options: float) -> dict[str, Any]:
        """With the statistics that a trial of the same input has measured."""
        recipe = candidate.recipe(self.setting, steps, **options)
        for measured in self.state.under("trial").values():
            if measured["input"] == candidate.input(self.setting):
                recipe["data"] |= {"mean": measured["mean"], "std": measured["std"]}
        return recipe

    def _trained(
        self, candidate: Candidate, steps: int, score: Scorer, seconds_per_step: float
    ) -> dict[str, Any]:
        recipe = self._recipe(candidate, steps, seconds=seconds_per_step)
        seconds = train(recipe, self.host, self.console)
        found = scored(f"{candidate.name}-{steps}", self.state, score)
        return {"title": candidate.title, "steps": steps, "train_seconds": seconds, **found}
