"""scores_by_step.jsonl of a run: a line per score of its encoder after some of its steps, in the order of the steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from m2dx.contract.atomic import replace_text
from m2dx.contract.components import Score

STEP_SCORES_FILE = "scores_by_step.jsonl"
"""Name of the file in the folder of a run."""


def write_step_scores(folder: Path, step: int, scores: Iterable[Score]) -> None:
    """Adds the scores of a step, in place of those that the file has of it: `step` and the fields of `Score`.

    The file is written anew and replaced at once, so that nobody reads half of it.
    """
    lines = [{"step": step, **asdict(score)} for score in scores]
    kept = [line for line in read_step_scores(folder) if line["step"] != step]
    _write(folder, sorted([*kept, *lines], key=itemgetter("step")))


def read_step_scores(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's file, none where it has no such file; lines that are no scores of a step are left out."""
    try:
        text = (folder / STEP_SCORES_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for row in text.splitlines() if (line := _parse(row)) is not None]


def drop_step_scores(folder: Path, *, after: int) -> None:
    """Removes the lines of later steps, which a run that goes on from that step makes again."""
    lines = read_step_scores(folder)
    kept = [line for line in lines if line["step"] <= after]
    if len(kept) < len(lines):
        _write(folder, kept)


def _write(folder: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(f"{json.dumps(line, allow_nan=False, default=str)}\n" for line in lines)
    replace_text(folder / STEP_SCORES_FILE, text)


def _parse(row: str) -> dict[str, Any] | None:
    try:
        line = json.loads(row)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


Column = tuple[str, str, str]
"""Task, protocol, metric."""


@dataclass(frozen=True)
class StepScore:
    """One score after a step."""

    step: int
    column: Column
    mean: float  # in [0, 1]
    ci95: float | None

    @property
    def text(self) -> str:
        """In percent, with the interval."""
        return f"{100 * self.mean:.1f}" + ("" if self.ci95 is None else f" ± {100 * self.ci95:.1f}")


def shown_step_scores(path: Path, notes: dict[str, str]) -> tuple[StepScore, ...]:
    """The scores of a run, by step; none without the file. Lines that cannot be read are counted in `notes`."""
    if not path.exists():
        return ()
    scores: dict[tuple[int, Column], StepScore] = {}
    unreadable = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            score = _score(json.loads(line))
        except (ValueError, KeyError, TypeError):
            unreadable += 1
        else:
            scores[score.step, score.column] = score  # a later line of the same replaces it
    if unreadable:
        notes[path.name] = f"Lines of {path.name} that cannot be read, and are not shown: {unreadable}."
    return tuple(sorted(scores.values(), key=lambda score: score.step))


def _score(line: Mapping[str, object]) -> StepScore:
    mean, ci95, step = line["mean"], line.get("ci95"), line["step"]
    if not isinstance(mean, int | float) or not math.isfinite(mean) or not isinstance(step, int):
        raise ValueError("not a score of a step")
    known = isinstance(ci95, int | float) and math.isfinite(ci95)
    column = (str(line["task"]), str(line["protocol"]), str(line["metric"]))
    return StepScore(step, column, float(mean), float(ci95) if known else None)  # type: ignore[arg-type]
