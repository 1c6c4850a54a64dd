"""The folder of a sweep: its manifest, the recipe of each point, the runs, and what they printed.

<output>/<sweep>/
  sweep.json            the manifest: the keys, and the points with their values
  recipes/<point>.yaml  the point's resolved recipe, which is what is trained
  <point>/              the run's folder
  logs/<point>.log      what the run printed; .json: how its last process ended; .lock: held while one is at work
  results.jsonl         records of all scores
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from m2dx.contract.atomic import replace_file
from m2dx.contract.errors import CheckpointError, RecipeError
from m2dx.contract.version import package_version
from m2dx.encoder.checkpoint import CheckpointFolder

MANIFEST = "sweep.json"
FORMAT = "m2dx-sweep"
LOCK_TRIES = 5


class State(Enum):
    """How far a point is."""

    FINISHED = "finished"
    RUNNING = "running"  # in a process that is at work now
    FAILED = "failed"  # its last process ended with an error
    UNFINISHED = "unfinished"  # was stopped
    NEW = "not started"


@dataclass(frozen=True)
class ManifestPoint:
    """A point of the manifest."""

    name: str
    values: Mapping[str, str]  # by key, as typed


@dataclass(frozen=True)
class Manifest:
    """What a sweep is made of."""

    recipe: str  # name of the recipe
    source: str  # its file
    keys: tuple[tuple[str, ...], ...]  # of each argument with several values
    points: tuple[ManifestPoint, ...]
    m2dx: str = package_version()  # the version that wrote it
    format: str = FORMAT


@dataclass(frozen=True)
class Attempt:
    """How the last process of a run ended."""

    outcome: State  # FINISHED, FAILED, or UNFINISHED where it was stopped
    code: int  # its exit code; negative: the signal that killed it
    seconds: float
    ended: str  # date and time
    host: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class SweepFolder:
    """The files of a sweep."""

    path: Path

    @property
    def manifest_file(self) -> Path:
        return self.path / MANIFEST

    def run(self, point: str) -> Path:
        """The folder of a point's run."""
        return self.path / point

    def recipe(self, point: str) -> Path:
        """The recipe of a point."""
        return self.path / "recipes" / f"{point}.yaml"

    def log(self, point: str) -> Path:
        """What a point's processes printed."""
        return self.path / "logs" / f"{point}.log"

    def attempt_file(self, point: str) -> Path:
        """How a point's last process ended."""
        return self.path / "logs" / f"{point}.json"

    def read_manifest(self) -> Manifest:
        """The manifest; RecipeError where there is none, or it cannot be read."""
        try:
            text = self.manifest_file.read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(
                f"{self.path} must be the folder of a sweep, but its {MANIFEST} cannot be read: {error.strerror}; "
                "`m2dx sweep RECIPE KEY=A,B` makes one"
            ) from error
        try:
            manifest = TypeAdapter(Manifest).validate_json(text)
        except ValidationError as error:
            raise RecipeError(
                f"{self.manifest_file} must be the manifest of a sweep, but: {error.errors()[0]['msg']}"
            ) from error
        if manifest.format != FORMAT:
            raise RecipeError(
                f"{self.manifest_file} must have the format {FORMAT}, but has {manifest.format!r}"
            )
        return manifest

    def write_manifest(self, manifest: Manifest) -> None:
        """Writes the manifest at once."""
        write_json(self.manifest_file, asdict(manifest))

    def write_attempt(self, point: str, attempt: Attempt) -> None:
        """Notes how a point's process ended."""
        write_json(self.attempt_file(point), {**asdict(attempt), "outcome": attempt.outcome.value})

    def read_attempt(self, point: str) -> Attempt | None:
        """How a point's last process ended; None: none has, or the note cannot be read."""
        try:
            return TypeAdapter(Attempt).validate_json(self.attempt_file(point).read_bytes())
        except (OSError, ValidationError):
            return None

    def saved_step(self, point: str) -> int | None:
        """The step of a run's newest checkpoint; None: it has none."""
        steps = CheckpointFolder(self.run(point) / "checkpoints").steps()
        return steps[-1] if steps else None

    def state(self, point: str) -> State:
        """How far a point is, from what is on the disk."""
        if self._is_running(point):
            return State.RUNNING
        attempt = self.read_attempt(point)
        if attempt is not None and attempt.outcome is State.FAILED and not self._trained_since(point):
            return State.FAILED
        if self.is_finished(point):
            return State.FINISHED
        begun = self.saved_step(point) is not None or (self.run(point) / "recipe.yaml").exists()
        return State.UNFINISHED if begun or attempt is not None else State.NEW

    def lock(self, point: str) -> int | None:
        """An open file that shows, as long as any process has it, that the point is at work; None: another has it."""
        path = self._lock_file(point)
        path.parent.mkdir(exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)  # someone may only be asking for the state
            except OSError:  # a file system without locks
                return file
            else:
                return file
        os.close(file)
        return None

    def _lock_file(self, point: str) -> Path:
        return self.path / "logs" / f"{point}.lock"

    def _is_running(self, point: str) -> bool:
        try:
            file = os.open(self._lock_file(point), os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
        finally:
            os.close(file)
        return False

    def _trained_since(self, point: str) -> bool:
        """Whether someone trained the run by hand after its last process of the sweep ended."""
        summary, attempt = self.run(point) / "summary.json", self.attempt_file(point)
        return summary.exists() and summary.stat().st_mtime > attempt.stat().st_mtime

    def is_finished(self, point: str) -> bool:
        """Trained to the last step, exported, and scored where its recipe says so."""
        folder = self.run(point)
        summary = _read_json(folder / "summary.json")
        trained = isinstance(summary, dict) and summary.get("stopped_by") is None
        if not trained or not (folder / "encoder" / "config.json").exists():
            return False
        return (folder / "scores.json").exists() or not self._is_scored(point)

    def _is_scored(self, point: str) -> bool:
        try:
            recipe = yaml.safe_load(self.recipe(point).read_text(encoding="utf-8"))
            return bool(recipe["evaluation"]["tasks"])
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.recipe(point)} must be the recipe of a point, but cannot be read: {error}; "
                "`m2dx sweep RECIPE KEY=A,B --resume` with the recipe and the grid writes it again"
            ) from error


def write_json(path: Path, content: Any) -> None:
    """Writes JSON at once."""
    replace_file(path, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
