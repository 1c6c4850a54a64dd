"""What a run's folder says: everything the page shows, with what is missing named."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
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
    summary = _summary(folder, notes)
    return RunFolder(
        name=folder.resolve().name,
        recipe=recipe,
        metrics=_metrics(folder / "metrics.jsonl", notes),
        summary=summary,
        scores=_scores(folder / "scores.json", notes),
        step_scores=_step_scores(folder, notes),
        bad_files=_bad_files(folder, 0 if summary is None else summary.bad_files, notes),
        notes=notes,
    )


def _metrics(path: Path, notes: dict[str, str]) -> tuple[dict[str, float], ...]:
    if not path.exists():
        notes[path.name] = "metrics.jsonl is missing: the run has not reached its first logged step."
        return ()
    lines, unreadable = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(text)
            line = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
            lines.append({"step": line.pop("step"), **line})
        except (ValueError, KeyError, AttributeError):
            unreadable += 1
    if unreadable:
        notes[path.name] = f"Lines of metrics.jsonl that cannot be read, and are not shown: {unreadable}."
    elif not lines:
        notes[path.name] = "metrics.jsonl is empty: the run has not reached its first logged step."
    return tuple(lines)


def _summary(folder: Path, notes: dict[str, str]) -> RunSummary | None:
    try:
        summary = read_summary(folder)
    except CheckpointError as error:
        notes[SUMMARY_FILE] = str(error)
        return None
    if summary is None:
        notes[SUMMARY_FILE] = "summary.json is missing: the run has not ended yet, or was killed."
    return summary


def _step_scores(folder: Path, notes: dict[str, str]) -> tuple[StepScore, ...]:
    found = read_step_scores(folder)
    if found.unreadable:
        notes[STEP_SCORES_FILE] = (
            f"Lines of {STEP_SCORES_FILE} that cannot be read, and are not shown: {found.unreadable}."
        )
    return found.scores


def _scores(path: Path, notes: dict[str, str]) -> tuple[Score, ...]:
    if not path.exists():
        notes[path.name] = "scores.json is missing: this run has not been evaluated."
        return ()
    try:
        scores = tuple(read_scores(path))
    except CheckpointError as error:
        notes[path.name] = str(error)
        return ()
    if not scores:
        notes[path.name] = "scores.json is empty: the recipe names no evaluation."
    return scores


def _bad_files(folder: Path, counted: int, notes: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Bad files of all processes (each writes its own table), every file once; without a table there are none."""
    paths = sorted(folder.glob("bad_files*.tsv"))
    if not paths and counted:
        notes["bad_files.tsv"] = f"bad_files.tsv is missing: the summary counts {counted} unusable files."
    found: dict[str, str] = {}
    for path in paths:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.reader(file, delimiter="\t")
            next(rows, None)  # the header
            for row in rows:
                found.setdefault(row[0] if row else "", "; ".join(row[1:]))
    return tuple(sorted(found.items()))
