"""The scores of a sweep's runs as a table: a row per point, or one key down and another across."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from m2dx.contract.errors import M2dxError
from m2dx.contract.wording import suggestion
from m2dx.evaluation.metrics import half_width_95
from m2dx.results.scores import read_scores
from m2dx.sweep.folder import State, SweepFolder

PRETRAINED = "pretrained"
"""The encoder that a run has trained, in scores.json."""
AVERAGE = "average"
"""In place of a task: the mean over all tasks of a protocol and metric."""
NOT_METRICS = ("step", "epoch", "time")


@dataclass(frozen=True)
class Number:
    """A score in percent, or a metric of the training as it is."""

    value: float
    ci95: float | None = None  # of a score by itself


@dataclass(frozen=True)
class RunNumbers:
    """What a finished run has measured."""

    scores: Mapping[str, Number]  # by task/protocol/metric, or average/protocol/metric
    metrics: Mapping[str, Number]  # the last value of each metric of the training

    def get(self, name: str) -> Number | None:
        """A score or a metric."""
        return self.scores.get(name) or self.metrics.get(name)


@dataclass(frozen=True)
class Measured:
    """A sweep's finished runs."""

    runs: Mapping[str, RunNumbers]  # by point
    states: Mapping[str, State]  # of all points
    scores: tuple[str, ...] = field(init=False)  # that any run has, averages first
    metrics: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        scores = dict.fromkeys(name for run in self.runs.values() for name in run.scores)
        averages = [name for name in scores if name.startswith(f"{AVERAGE}/")]
        object.__setattr__(self, "scores", tuple(dict.fromkeys([*averages, *scores])))
        object.__setattr__(
            self, "metrics", tuple(dict.fromkeys(name for run in self.runs.values() for name in run.metrics))
        )

    def select(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """The names that patterns choose, in their order; without patterns all scores, or losses where there are none.

        A pattern is a metric, or task/protocol/metric whose last parts may be left out, with * for any text. M2dxError
        where one chooses nothing.
        """
        known = (*self.scores, *self.metrics)
        if not patterns:
            shown = tuple(name for name in self.metrics if name.startswith("loss") or name == "rankme")
            return self.scores or shown
        chosen: dict[str, None] = {}
        for pattern in patterns:
            found = [name for name in known if _chooses(pattern, name)]
            if not found:
                raise M2dxError(
                    f"--column must be a score or a metric of these runs, but is {pattern!r}; "
                    f"{suggestion(pattern, known)}"
                )
            chosen |= dict.fromkeys(found)
        return tuple(chosen)


def measure(folder: SweepFolder, points: Sequence[str], *, encoder: str = PRETRAINED) -> Measured:
    """Scores of an encoder (or baseline) and last metrics of the finished runs.

    M2dxError where there are scores, but none of that encoder; CheckpointError where scores cannot be read.
    """
    states = {point: folder.state(point) for point in points}
    runs, encoders = {}, set()
    for point in points:
        if states[point] is not State.FINISHED:
            continue
        run = folder.run(point)
        entries = read_scores(run / "scores.json") if (run / "scores.json").exists() else []
        encoders |= {entry.encoder for entry in entries}
        scores = {
            f"{e.task}/{e.protocol}/{e.metric}": Number(
                100 * e.mean, None if e.ci95 is None else 100 * e.ci95
            )
            for e in entries
            if e.encoder == encoder
        }
        runs[point] = RunNumbers(scores, last_metrics(run / "metrics.jsonl"))
    if encoders and encoder not in encoders:
        raise M2dxError(
            f"--encoder must be one of those that were scored, but is {encoder!r}; "
            f"{suggestion(encoder, encoders)}"
        )
    return Measured(_with_averages(runs), states)


def last_metrics(path: Path) -> dict[str, Number]:
    """The last value of each metric of a run; lines that are cut off are left out."""
    last: dict[str, Number] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                continue
            last |= {
                name: Number(float(value))
                for name, value in values.items()
                if name not in NOT_METRICS and isinstance(value, int | float)
            }
    return last


def pooled(numbers: Sequence[Number], *, over_seeds: bool) -> Number | None:
    """The mean of runs and, over seeds, half the 95 % interval of the mean (Student's t); None: there are no runs."""
    if not numbers:
        return None
    if not over_seeds:
        return numbers[0]
    values = [number.value for number in numbers]
    return Number(float(np.mean(values)), half_width_95(values))


def _with_averages(runs: Mapping[str, RunNumbers]) -> dict[str, RunNumbers]:
    """The runs with means over tasks, where a protocol and metric has several, for the runs that have all of them."""
    tasks: dict[tuple[str, str], dict[str, None]] = {}
    for run in runs.values():
        for name in run.scores:
            task, protocol, metric = name.split("/", 2)
            tasks.setdefault((protocol, metric), {})[task] = None
    averaged = {}
    for point, run in runs.items():
        averages = {}
        for (protocol, metric), names in tasks.items():
            values = [run.scores.get(f"{task}/{protocol}/{metric}") for task in names]
            present = [number.value for number in values if number is not None]
            if len(names) > 1 and len(present) == len(names):
                averages[f"{AVERAGE}/{protocol}/{metric}"] = Number(float(np.mean(present)))
        averaged[point] = RunNumbers({**averages, **run.scores}, run.metrics)
    return averaged


def _chooses(pattern: str, name: str) -> bool:
    parts, names = pattern.split("/"), name.split("/", 2)
    return len(parts) <= len(names) and all(map(fnmatchcase, names, parts))
