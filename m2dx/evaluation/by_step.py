"""scores_by_step.jsonl of a run: a line per score of its encoder after some of its steps, in the order of the steps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

from m2dx.components import Score
from m2dx.training.checkpoint import replace_file

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
    replace_file(folder / STEP_SCORES_FILE, lambda file: file.write(text.encode("ascii")))


def _parse(row: str) -> dict[str, Any] | None:
    try:
        line = json.loads(row)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None
