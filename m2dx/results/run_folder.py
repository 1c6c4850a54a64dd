"""What a run's folder says: everything the page shows, with what is missing named."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from m2dx.contract.components import Score
from m2dx.contract.errors import CheckpointError
from m2dx.results.run_summary import SUMMARY_FILE, RunSummary, read_summary
from m2dx.results.scores import STEP_SCORES_FILE, StepScore, read_scores, read_step_scores


@dataclass(frozen=True)
class RunFolder:
    """The readable content of a run's folder; what could not be read is empty, and `notes` says why."""

    name: str
    recipe: str  # YAML
    metrics: tuple[dict[str, float], ...]
    summary: RunSummary | None
    scores: tuple[Score, ...]
    step_scores: tuple[StepScore, ...]
    bad_files: tuple[tuple[str, str], ...]  # path, reason
    notes: Mapping[str, str]  # by file name: why it is not shown, or not all of it


def read_run(folder: Path) -> RunFolder:
    """Reads a run's folder. Raises CheckpointError where there is no recipe.yaml, which every run has."""
    try:
        recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} must be the folder of a run, with its recipe.yaml, but that cannot be read: {error}"
        ) from error
    notes: dict[str, str] = {}
    summary, scores = None, []
    try:
        summary = read_summary(folder)
        if summary is None:
            notes[SUMMARY_FILE] = "summary.json is missing: the run has not ended yet, or was killed."
    except CheckpointError as error:
        notes[SUMMARY_FILE] = str(error)
    try:
        if not (folder / "scores.json").exists():
            notes["scores.json"] = "scores.json is missing: this run has not been evaluated."
        elif not (scores := read_scores(folder / "scores.json")):
            notes["scores.json"] = "scores.json is empty: the recipe names no evaluation."
    except CheckpointError as error:
        notes["scores.json"] = str(error)
    by_step = read_step_scores(folder)
    if by_step.unreadable:
        notes[STEP_SCORES_FILE] = _NOT_SHOWN.format(STEP_SCORES_FILE, by_step.unreadable)
    tables = sorted(folder.glob("bad_files*.tsv"))
    if not tables and summary is not None and summary.bad_files:
        notes["bad_files.tsv"] = (
            f"bad_files.tsv is missing: the summary counts {summary.bad_files} unusable files."
        )
    return RunFolder(
        name=folder.resolve().name,
        recipe=recipe,
        metrics=_metrics(folder / "metrics.jsonl", notes),
        summary=summary,
        scores=tuple(scores),
        step_scores=by_step.scores,
        bad_files=_bad_files(tables),
        notes=notes,
    )


_NOT_SHOWN = "Lines of {} that cannot be read, and are not shown: {}."


def _metrics(path: Path, notes: dict[str, str]) -> tuple[dict[str, float], ...]:
    lines, unreadable = [], 0
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for entry in text.splitlines():
        try:
            values = json.loads(entry)
            line = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
            lines.append({"step": line.pop("step"), **line})
        except (ValueError, KeyError, AttributeError):
            unreadable += 1
    if unreadable:
        notes[path.name] = _NOT_SHOWN.format(path.name, unreadable)
    elif not lines:
        what = "empty" if path.exists() else "missing"
        notes[path.name] = f"{path.name} is {what}: the run has not reached its first logged step."
    return tuple(lines)


def _bad_files(tables: Iterable[Path]) -> tuple[tuple[str, str], ...]:
    """Bad files of all processes (each writes its own table), every file once."""
    found: dict[str, str] = {}
    for path in tables:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.reader(file, delimiter="\t")
            next(rows, None)  # the header
            for row in rows:
                found.setdefault(row[0] if row else "", "; ".join(row[1:]))
    return tuple(sorted(found.items()))
