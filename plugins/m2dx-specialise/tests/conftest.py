"""Sixty real notes of three instruments, a tiny encoder to start from, and candidates that train for a few steps."""

import csv
from pathlib import Path
from typing import Any

import pytest
from m2dx_specialise import audit, candidates, judge, rungs, search, training
from m2dx_specialise.budget import Budget, Rung

from m2dx.evaluation import logistic
from m2dx.testing.samples import write_csv, write_encoder

SOUNDS = Path(__file__).parents[3] / "examples" / "sounds"
CLASSES = {"bass": 20, "brass": 20, "guitar": 20}
_read, _find_duplicates, _heard = audit._read, audit.find_duplicates, dict[Any, Any]()


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of notes with labels and groups, without a division."""
    folder = tmp_path_factory.mktemp("notes")
    rows: list[tuple[Path, str, str, float]] = []
    with (SOUNDS / "instrument.csv").open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    for label, count in CLASSES.items():
        own = [row for row in listed if row["label"] == label]
        spread = own[:: len(own) // count][:count]
        rows += [(SOUNDS / row["path"], row["label"], row["group"], 0.7) for row in spread]
    write_csv(folder / "notes.csv", "path,label,group,duration", rows)
    return folder / "notes.csv"


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with random weights."""
    return write_encoder(tmp_path_factory.mktemp("encoders") / "small")


@pytest.fixture
def heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit reads the same clips once in all tests, whatever their labels."""

    def once(what: str, compute: Any, clips: Any, *given: Any) -> Any:
        key = what, tuple((clip.path, clip.start, clip.duration) for clip in clips)
        if key not in _heard:
            _heard[key] = list(compute(clips, *given))
        return _heard[key]

    monkeypatch.setattr(audit, "_read", lambda *given: once("read", _read, *given))
    monkeypatch.setattr(audit, "find_duplicates", lambda *given: once("duplicates", _find_duplicates, *given))


@pytest.fixture
def few_steps(heard_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches of seconds: few steps of tiny networks, in this process."""
    monkeypatch.setattr(search, "WORKERS", 0)
    monkeypatch.setattr(candidates, "SMALL", candidates.Network(0.32, (16, 16), "tiny", 1))
    monkeypatch.setattr(training, "TRIAL_STEPS", 2)
    monkeypatch.setattr(training, "TRIAL_WINDOW", 1)
    monkeypatch.setattr(judge, "DRAWS", 1)
    monkeypatch.setattr(logistic, "CS", (1e-2, 1.0))

    def budget(costs: dict[str, float], *_: Any, **__: Any) -> Budget:
        rung = dict.fromkeys(costs, 2)
        more = dict.fromkeys(costs, 4)
        several = (Rung(2, rung), Rung(1, more)) if len(costs) > 1 else (Rung(1, rung),)
        return Budget(several, tuple(list(costs)[2:]))

    monkeypatch.setattr(rungs, "divide_time", budget)
    monkeypatch.setattr(rungs.Rungs, "_next_steps", lambda self, found, counts: {next(iter(found)): 4})
    monkeypatch.setattr(rungs.Rungs, "_joins", lambda *given: 0)
    monkeypatch.setattr(rungs.Rungs, "_left", lambda self: 1e3)


@pytest.fixture
def two_candidates(few_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with the start trained further with labels: of moved clips, and of clips as they are."""
    propose = candidates.propose
    monkeypatch.setattr(search, "propose", lambda *given, **more: propose(*given, **more)[:2])
