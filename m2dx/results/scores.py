"""Files of scores in a run's folder: scores.json, of its end, and scores_by_step.jsonl, of some of its steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from m2dx.contract.atomic import replace_text
from m2dx.contract.components import Score
from m2dx.contract.errors import CheckpointError

PRETRAINED = "pretrained"  # name of the encoder itself among the baselines
START = "start"  # name of the baseline that further pre-training started from (`init_from`)
STEP_SCORES_FILE = "scores_by_step.jsonl"
"""Name of the file in the folder of a run: a line per score of its encoder after a step, in the order of the steps."""

T = TypeVar("T")
Column = tuple[str, str, str]
"""Task, protocol, metric."""


@dataclass(frozen=True)
class StepScore:
    """A score of the encoder that a run had after a step."""

    step: int
    score: Score

    @property
    def column(self) -> Column:
        """What was measured."""
        return (self.score.task, self.score.protocol, self.score.metric)


@dataclass(frozen=True)
class StepScores:
    """What a run's file holds."""

    scores: tuple[StepScore, ...] = ()  # by step; of two lines of the same step and column the later one
    unreadable: int = 0  # lines that are no scores of a step


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Writes scores as JSON: a list of objects with the fields of `Score`, without predictions."""
    text = json.dumps([_fields(score) for score in scores], indent=1, allow_nan=False)
    replace_text(path, f"{text}\n")


def _fields(score: Score) -> dict[str, Any]:
    fields = asdict(replace(score, predictions=()))
    del fields["predictions"]  # which have a file of their own
    return fields


def without_classes(details: Mapping[str, object]) -> dict[str, object]:
    """Details without the table per class, which only scores.json has: other files grow with each score."""
    return {key: value for key, value in details.items() if key != "per_class"}


def read_scores(path: Path) -> list[Score]:
    """Scores that `write_scores` wrote. Raises CheckpointError for another content."""
    with CheckpointError.blaming(f"{path} must be scores written by m2dx, but cannot be read"):
        return TypeAdapter(list[Score]).validate_python(json.loads(path.read_text(encoding="utf-8")))


def write_step_scores(folder: Path, step: int, scores: Iterable[Score]) -> None:
    """Adds the scores of a step, in place of those that the file has of it: `step` and the fields of `Score`."""
    kept = [score for score in read_step_scores(folder).scores if score.step != step]
    _write(folder, sorted([*kept, *(StepScore(step, score) for score in scores)], key=attrgetter("step")))


def drop_step_scores(folder: Path, *, after: int) -> None:
    """Removes the scores of later steps, since a run that resumes at this step makes them again."""
    found = read_step_scores(folder)
    kept = [score for score in found.scores if score.step <= after]
    if len(kept) < len(found.scores):
        _write(folder, kept)


def read_step_scores(folder: Path) -> StepScores:
    """The scores by step of a run's folder; none where it has no such file."""
    adapter = TypeAdapter(StepScore)

    def parse(line: str) -> StepScore:
        fields = json.loads(line, parse_constant=int)  # int refuses NaN and infinities
        score = {"ci95": None, "values": (), **fields}
        return adapter.validate_python({"step": fields["step"], "score": score})

    lines, unreadable = parse_lines(folder / STEP_SCORES_FILE, parse)
    found = {(score.step, score.column): score for score in lines}
    return StepScores(tuple(sorted(found.values(), key=attrgetter("step"))), unreadable)


def parse_lines(path: Path, parse: Callable[[str], T]) -> tuple[list[T], int]:
    """What `parse` makes of a file's lines, nothing where there is no file; and the number of lines that it refuses."""
    found, unreadable = [], 0
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            found.append(parse(line))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            unreadable += 1
    return found, unreadable


def _write(folder: Path, scores: Iterable[StepScore]) -> None:
    lines = [{"step": item.step, **_fields(item.score)} for item in scores]
    for line in lines:
        del line["encoder"]  # it is always the run's own
        line["details"] = without_classes(line["details"])
    text = "".join(f"{json.dumps(line, allow_nan=False, default=str)}\n" for line in lines)
    replace_text(folder / STEP_SCORES_FILE, text)
