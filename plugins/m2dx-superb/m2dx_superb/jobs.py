"""One training and evaluation by s3prl, as the process that runs it is told, and what comes back from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from m2dx_superb.statistics import Statistics

OUTCOME = "outcome.json"
JOB = "job.json"


@dataclass(frozen=True)
class Job:
    """A task, or one fold of it. Paths are absolute."""

    task: str
    encoder: str  # a path, or "zeros"
    sha256: str  # of its weights and input settings
    data: str
    folder: str  # of all that s3prl writes
    cache: str  # of what depends on the data alone: statistics, lists
    device: str
    arguments: tuple[str, ...] = ()  # for s3prl
    fold: int | None = None  # 1 to 5, of er
    checkout: str | None = None  # of s3prl's repository; None: s3prl.problem
    download: bool = False  # lists that are missing

    @property
    def interface(self) -> str:
        """Of s3prl: "problem" or "run_downstream"."""
        return "problem" if self.checkout is None else "run_downstream"

    def same_model(self, other: Job) -> bool:
        """Whether a training of the other may go on as this one."""
        return self._model() == other._model()

    def _model(self) -> tuple[object, ...]:
        return self.task, self.sha256, self.data, self.fold, self.interface, self.arguments


@dataclass(frozen=True)
class Outcome:
    """What a job gave."""

    value: float  # of the task's metric, in [0, 1]
    settings: dict[str, object]  # of the training, as far as they are told
    statistics: Statistics | None  # None: nothing was trained, or the control has no input


def write_job(job: Job) -> Path:
    """Writes a job into its folder and gives the file."""
    path = Path(job.folder) / JOB
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(job), indent=1) + "\n", encoding="utf-8")
    return path


def read_job(path: Path) -> Job:
    """The job in a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Job(**{**content, "arguments": tuple(content["arguments"])})


def write_outcome(job: Job, outcome: Outcome) -> None:
    """Writes an outcome into its job's folder."""
    path = Path(job.folder) / OUTCOME
    path.write_text(json.dumps(asdict(outcome), indent=1) + "\n", encoding="utf-8")


def read_outcome(job: Job) -> Outcome | None:
    """The outcome of a job; None: it has none."""
    path = Path(job.folder) / OUTCOME
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    statistics = content["statistics"]
    return Outcome(**{**content, "statistics": statistics and Statistics(**statistics)})
