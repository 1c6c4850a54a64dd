"""summary.json of a run: what it did, on which data, with which software and machine.

The page of a run, and what it says about reproducing it, are made from this record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from m2dx.contract.atomic import replace_json
from m2dx.contract.errors import CheckpointError

SUMMARY_FILE = "summary.json"
"""Name of the file in the folder of a run."""


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
        """Each of them, the noise last."""
        return {**self.sets, **({} if self.noise is None else {"noise": self.noise})}


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


@dataclass(frozen=True)
class RunSummary:
    """What a run did, from its first step on, also before it was resumed."""

    steps: int
    total_steps: int
    seconds: float  # in the training loop
    clips: int  # trained on
    bad_files: int
    collapse_warnings: int
    last_metrics: Mapping[str, float]
    stopped_by: str | None  # the signal that ended it before the last step
    failed_evaluations: int | None  # None: the recipe asks for none during training
    device: str  # of one process, such as "cuda:0"
    processes: int
    data_clips: int
    hours_of_data: float | None  # None: the clips' lengths are not all known
    missing: tuple[str, ...]  # what the data sets lack on this machine
    data: DataFacts
    software: Software
    launch: Launch


def write_summary(summary: RunSummary, folder: Path) -> None:
    """Writes summary.json into a run's folder."""
    replace_json(folder / SUMMARY_FILE, asdict(summary))


def read_summary(folder: Path) -> RunSummary | None:
    """The summary in a run's folder; None: there is none. CheckpointError where it is not whole."""
    path = folder / SUMMARY_FILE
    try:
        return TypeAdapter(RunSummary).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise CheckpointError(
            f"{path} must be a summary written by m2dx, but cannot be read: {why}"
        ) from error
