"""A record per score, with all that is needed to compare it later, and the file that they are appended to.

This module imports no torch, so that tables of results come at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, FiniteFloat, TypeAdapter, ValidationError

from m2dx.contract.errors import M2dxError
from m2dx.contract.package import package_version
from m2dx.contract.wording import counted, problem_of

if TYPE_CHECKING:
    from m2dx.encoder.audio import AudioEncoder
    from m2dx.encoder.images import ImageEncoder

LIBRARIES = ("torch", "numpy")
RESULTS_FILE = "results.jsonl"  # name of the file, in the folder that runs are in (a recipe's `output`)


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
    ci95: FiniteFloat | None  # half width of the 95 % confidence interval, as a score's
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


EncoderKey = tuple[str, str]  # name, sha256


def append_records(path: Path, records: Iterable[ResultRecord]) -> None:
    """Appends a line of JSON per record, all lines in one write, so that two runs may do it at a time.

    What is left of a write that was cut off keeps a line of its own. Raises M2dxError where the file cannot be written.
    """
    contents = [{**asdict(record), "date": record.date.isoformat()} for record in records]
    if not contents:
        return
    lines = [json.dumps(content, allow_nan=False, default=str) for content in contents]
    data = "".join(f"{line}\n" for line in lines).encode("ascii")  # names of files may not be UTF-8
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                data = data if file.read(1) == b"\n" else b"\n" + data
            written = file.write(data)
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
            except ValidationError as error:
                broken.append(f"{file}:{number}: not a record: {problem_of(error)}")
            except (ValueError, RecursionError) as error:
                broken.append(f"{file}:{number}: not JSON: {error}")
    return Results(tuple(records), tuple(broken))


def encoder_key(record: ResultRecord) -> EncoderKey:
    """What makes an encoder one and the same: its name and its weights."""
    return record.encoder.name, record.encoder.sha256


def score_key(record: ResultRecord) -> tuple[str, str, str]:
    """What was measured: task, name of the protocol, metric."""
    return record.task, record.protocol.name, record.metric


def encoder_labels(records: Sequence[ResultRecord]) -> dict[EncoderKey, str]:
    """Names of encoders; with the start of the SHA-256 where several have one name."""
    keys = set(map(encoder_key, records))
    several = Counter(name for name, _ in keys)
    return {key: key[0] if several[key[0]] == 1 else f"{key[0]} ({key[1][:8]})" for key in keys}


def newest_first(records: Sequence[ResultRecord]) -> list[ResultRecord]:
    """Records by date, the newest first; of those with one date, the last one."""
    return sorted(records, key=lambda record: record.date)[::-1]


def newest(records: Sequence[ResultRecord]) -> list[ResultRecord]:
    """The newest record per encoder, task, protocol (by name), metric and data, in the order of the records."""
    kept: dict[tuple[object, ...], ResultRecord] = {}
    for record in newest_first(records):
        data = record.dataset, record.clips, record.classes, record.unit_seconds
        kept.setdefault((encoder_key(record), *score_key(record), *data), record)
    chosen = {id(record) for record in kept.values()}
    return [record for record in records if id(record) in chosen]


def left_out(records: Sequence[ResultRecord], shown: Sequence[ResultRecord]) -> list[str]:
    """A note on the records that are not among those shown, if there are any."""
    number = len(records) - len(shown)
    return [f"Left out: {counted(number, 'older record')} of the same scores."] if number else []


def package_versions() -> dict[str, str]:
    """Versions of m2dx, of what it computes with, and of Python."""
    packages = {name: version(name) for name in LIBRARIES}
    return {"m2dx": package_version(), **packages, "python": platform.python_version()}


def fingerprint(encoder: AudioEncoder | ImageEncoder, *, values: bool = True) -> str:
    """SHA-256 of an encoder's weights and of the settings of its input; without `values`, of the shapes alone."""
    from m2dx.encoder.config import BackboneConfig
    from m2dx.encoder.images import ImageEncoder
    from m2dx.evaluation.features import bytes_of

    heads = encoder.encoder.size.num_heads
    if isinstance(encoder, ImageEncoder):
        digest = digest_of_settings([encoder.section.model_dump(mode="json"), heads])
    else:
        logmel = encoder.logmel
        settings = [logmel.sample_rate, logmel.n_fft, logmel.win_length, logmel.hop_length, logmel.n_mels]
        others = [logmel.f_min, logmel.f_max, encoder.mean, encoder.std, encoder.long_clips]
        digest = digest_of_settings([*settings, *others, heads])
    if (other := BackboneConfig.of(encoder.encoder)) is not None:
        digest.update(other.model_dump_json().encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode("ascii"))
        if values:
            digest.update(bytes_of(tensor))
    return digest.hexdigest()


def digest_of_settings(settings: object) -> hashlib._Hash:
    """SHA-256 of what JSON can write."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode("ascii"))
