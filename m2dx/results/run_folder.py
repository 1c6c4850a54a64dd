"""What a run's folder says: summary.json, and everything else that the page shows, with what is missing named."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from m2dx.contract.components import Score
from m2dx.contract.errors import CheckpointError
from m2dx.contract.wording import noise_name
from m2dx.results.scores import STEP_SCORES_FILE, StepScore, parse_lines, read_scores, read_step_scores
from m2dx.training.monitor import TrainingSummary

if TYPE_CHECKING:
    from m2dx.results.predictions import Predictions

SUMMARY_FILE = "summary.json"  # name of the file in the folder of a run


@dataclass(frozen=True)
class SetFacts:
    """One data set of a recipe, or its noise, as it was listed.

    The counts are None where there is no list: where listing failed, which `error` tells, and for a source of noise.
    """

    name: str
    dataset: str  # the component
    split: str | None = None
    repeat: int | None = None  # times in an epoch; None: it is noise
    clips: int | None = None
    files: int | None = None
    hours: float | None = None  # None also where no length is known, and for images
    hours_from: int | None = None  # clips that the hours are an estimate from; None: they are all counted
    labelled: int | None = None  # clips with a label
    classes: int | None = None
    missing: tuple[str, ...] = ()  # what it lacks on this machine
    fingerprint: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class DataFacts:
    """The data sets of a recipe by name, and its noise."""

    sets: Mapping[str, SetFacts] = field(default_factory=dict)
    noise: SetFacts | None = None

    @property
    def by_name(self) -> dict[str, SetFacts]:
        """Each of them, the noise last: `noise`, or `noise_` where a data set is called that."""
        return {**self.sets, **({} if self.noise is None else {noise_name(self.sets): self.noise})}


@dataclass(frozen=True)
class Software:
    """What a run computed with."""

    versions: Mapping[str, str]  # by package: m2dx, Python, libraries, plugins
    commits: Mapping[str, str]  # by package, of those whose commit is known


@dataclass(frozen=True)
class Launch:
    """How and where a run was started."""

    folder: str  # the working folder
    machine: str
    command: str | None = None  # None: by a program that uses m2dx as a library
    gpus: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunSummary(TrainingSummary):
    """What a run did, on what, and with what."""

    failed_evaluations: int | None  # None: the recipe asks for none during training
    device: str  # of one process, such as "cuda:0"
    processes: int
    missing: tuple[str, ...]  # what the data sets lack on this machine
    data: DataFacts
    software: Software
    launch: Launch


def read_summary(folder: Path) -> RunSummary | None:
    """The summary in a run's folder; None: there is none. CheckpointError where it is not whole."""
    path = folder / SUMMARY_FILE
    if not path.exists():
        return None
    with CheckpointError.blaming(f"{path} must be a summary written by m2dx, but cannot be read"):
        return TypeAdapter(RunSummary).validate_json(path.read_bytes())


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
    predictions: Predictions = field(default_factory=dict)


def read_run(folder: Path) -> RunFolder:
    """Reads a run's folder. Raises CheckpointError where there is no recipe.yaml, which every run has."""
    what = f"{folder} must be the folder of a run, with its recipe.yaml, but that cannot be read"
    with CheckpointError.blaming(what):
        recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
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
    from m2dx.results.predictions import PREDICTIONS_FILE, read_predictions  # pages alone show them

    predictions, unreadable = read_predictions(folder)
    if unreadable:
        notes[PREDICTIONS_FILE] = _NOT_SHOWN.format(PREDICTIONS_FILE, unreadable)
    by_step = read_step_scores(folder)
    if by_step.unreadable:
        notes[STEP_SCORES_FILE] = _NOT_SHOWN.format(STEP_SCORES_FILE, by_step.unreadable)
    bad_files = folder / "bad_files.tsv"
    if not bad_files.exists() and summary is not None and summary.bad_files:
        counts = f"the summary counts {summary.bad_files} unusable files"
        notes[bad_files.name] = f"{bad_files.name} is missing: {counts}."
    return RunFolder(
        name=folder.resolve().name,
        recipe=recipe,
        metrics=_metrics(folder / "metrics.jsonl", notes),
        summary=summary,
        scores=tuple(scores),
        step_scores=by_step.scores,
        bad_files=_bad_files(bad_files, notes) if bad_files.exists() else (),
        notes=notes,
        predictions=predictions,
    )


_NOT_SHOWN = "Lines of {} that cannot be read, and are not shown: {}."


def _metrics(path: Path, notes: dict[str, str]) -> tuple[dict[str, float], ...]:
    def parse(entry: str) -> dict[str, float]:
        line = {key: float(x) for key, x in json.loads(entry).items() if isinstance(x, int | float)}
        return {"step": line.pop("step"), **line}

    lines, unreadable = parse_lines(path, parse)
    if unreadable:
        notes[path.name] = _NOT_SHOWN.format(path.name, unreadable)
    elif not lines:
        what = "empty" if path.is_file() else "no file" if path.exists() else "missing"
        notes[path.name] = f"{path.name} is {what}: the run has not reached its first logged step."
    return tuple(lines)


def _bad_files(path: Path, notes: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Each file with the reason, as far as the table can be read."""
    rows = []
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.reader(file, delimiter="\t"):
                rows.append((row[0] if row else "", "; ".join(row[1:])))
    except (OSError, csv.Error) as error:  # such as a field that is too long
        notes[path.name] = f"{path.name} could not be read to its end: {error}"
    return tuple(rows[1:])  # after the header
