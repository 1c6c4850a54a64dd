"""A record per score, with all that is needed to compare it later, and the file that they are appended to.

This module imports no torch, so that tables of results come at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import AwareDatetime, FiniteFloat, TypeAdapter, ValidationError

from m2dx.contract.errors import M2dxError

RESULTS_FILE = "results.jsonl"
"""Name of the file, in the folder that runs are in (a recipe's `output`)."""


@dataclass(frozen=True)
class ScoredEncoder:
    """Whose score it is."""

    name: str  # of the run or the file that it is from; of a baseline: the baseline's
    sha256: str  # of weights and input settings; of random weights: of their shapes; of mean_logmel: of its settings
    path: str | None = None  # None: a baseline
    parameters: int | None = None  # of the transformer with its patch embedding; None: it has none


@dataclass(frozen=True)
class Protocol:
    """How it was scored."""

    name: str  # in the recipe
    evaluator: str  # name of the component
    settings: Mapping[str, object] = field(default_factory=dict)  # its options, defaults included


@dataclass(frozen=True)
class Division:
    """How the clips were divided."""

    folds: int  # 1: one training, validation and test part
    parts: tuple[int, int, int] | None = None  # clips for training, validation and test; None: several folds


@dataclass(frozen=True)
class ResultRecord:
    """One score. What an evaluation from outside a recipe cannot know is None."""

    date: AwareDatetime
    encoder: ScoredEncoder
    task: str  # its name in the recipe
    protocol: Protocol
    metric: str
    mean: FiniteFloat  # of values in [0, 1] for accuracy, mAP and error rates
    ci95: FiniteFloat | None  # half width of the 95 % confidence interval; None: one value only
    values: tuple[FiniteFloat, ...]
    seeds: tuple[int, ...] = ()
    step: int | None = None  # of the encoder's training, which went on after it
    recipe: str | None = None  # its name
    dataset: str | None = None  # name of the component
    division: Division | None = None
    clips: int | None = None  # that were used
    bad_clips: int | None = None  # that could not be used
    classes: int | None = None
    unit_seconds: FiniteFloat | None = None  # length that clips were cropped or filled to
    short_clips: str | None = None  # "pad" or "repeat"
    warnings: tuple[str, ...] = ()  # about the task
    details: Mapping[str, object] = field(default_factory=dict)  # the evaluator's own
    device: str = ""  # kind of the machine's device
    versions: Mapping[str, str] = field(default_factory=dict)  # of packages and Python


@dataclass(frozen=True)
class Results:
    """What is in files of results."""

    records: tuple[ResultRecord, ...]
    broken: tuple[str, ...]  # lines that are no records, each as `file:line: reason`


def append_records(path: Path, records: Iterable[ResultRecord]) -> None:
    """Appends a line of JSON per record, all lines in one write, so that two runs may do it at a time.

    What is left of a write that was cut off keeps a line of its own. Raises M2dxError where the file cannot be written.
    """
    lines = [_to_json(record) for record in records]
    if not lines:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            text = ("" if _ends_a_line(file) else "\n") + "".join(f"{line}\n" for line in lines)
            data = text.encode("ascii")
            written = os.write(file, data)
        finally:
            os.close(file)
        if written < len(data):
            raise OSError(f"only {written} of {len(data)} bytes were written; is the disk full?")
    except OSError as error:
        raise M2dxError(f"results cannot be appended to {path}: {error}") from error


def read_records(paths: Iterable[Path]) -> Results:
    """The records of files, or of the files `results.jsonl` in folders, in their order; a file given twice counts once.

    Raises M2dxError where a file cannot be read.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        file = path / RESULTS_FILE if path.is_dir() else path
        files.setdefault(file.resolve(), file)
    adapter = TypeAdapter(ResultRecord)
    records, broken = [], []
    for file in files.values():
        try:
            lines = file.read_bytes().split(b"\n")
        except OSError as error:
            raise M2dxError(
                f"there must be results in {file}, but it cannot be read: {error.strerror}; `m2dx train` and "
                "`m2dx evaluate` write them into the folder of runs"
            ) from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                records.append(adapter.validate_python(json.loads(line)))
            except (ValueError, RecursionError) as error:
                broken.append(f"{file}:{number}: {_reason(error)}")
    return Results(tuple(records), tuple(broken))


def _to_json(record: ResultRecord) -> str:
    content = {**asdict(record), "date": record.date.isoformat()}
    return json.dumps(content, allow_nan=False, default=str)  # ASCII: names of files may not be UTF-8


def _ends_a_line(file: int) -> bool:
    if os.lseek(file, 0, os.SEEK_END) == 0:
        return True
    os.lseek(file, -1, os.SEEK_END)
    return os.read(file, 1) == b"\n"


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"not a record: {where}: {first['msg']}" if where else f"not a record: {first['msg']}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    return f"not JSON: {error}"
