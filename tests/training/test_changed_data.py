"""What a run that goes on says of data that have changed since it started, and of two processes in one folder."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from filelock import FileLock, Timeout
from rich.console import Console

from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.data.clips import ClipList, join_sets
from m2dx.data.csv_list import CsvDataset
from m2dx.jobs.train import run_recipe
from m2dx.training.run_folder import check_same_data, running_alone

ROWS = [("a.wav", "dog"), ("b.wav", "cat"), ("c.wav", "dog"), ("d.wav", "cat")]


def clips_of(folder: Path, rows: list[tuple[str, str]], *, samples: int = 1600) -> ClipList:
    for name, _ in rows:
        soundfile.write(folder / name, np.zeros(samples, np.float32), 16_000)
    path = folder / "list.csv"
    path.write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    return join_sets({"sounds": (CsvDataset(path=path), None)})


def state_of(clips: ClipList) -> dict[str, object]:
    return {
        "label_names": {name: list(names) for name, names in clips.label_names.items()},
        "clips": {"count": len(clips), "fingerprint": clips.fingerprint},
    }


CHANGES: dict[str, tuple[list[tuple[str, str]], int, str]] = {
    "nothing": (ROWS, 1600, ""),
    "classes shifted": ([(n, {"dog": "cow", "cat": "dog"}[c]) for n, c in ROWS], 1600, "refused"),
    "a class renamed": ([(n, {"dog": "Dog"}.get(c, c)) for n, c in ROWS], 1600, "refused"),
    "a class more": ([*ROWS, ("e.wav", "cow")], 1600, "refused"),
    "labels swapped": ([(n, {"dog": "cat", "cat": "dog"}[c]) for n, c in ROWS], 1600, "told"),
    "list reversed": (ROWS[::-1], 1600, "told"),
    "a file less": (ROWS[:3], 1600, "told"),
    "other names": ([(f"x{n}", c) for n, c in ROWS], 1600, "told"),
    "other audio": (ROWS, 3200, "told"),
}


@pytest.mark.parametrize(("rows", "samples", "outcome"), CHANGES.values(), ids=CHANGES.keys())
def test_changed_data_are_refused_or_told(
    rows: list[tuple[str, str]],
    samples: int,
    outcome: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = state_of(clips_of(tmp_path, ROWS))
    now = clips_of(tmp_path, rows, samples=samples)
    with caplog.at_level(logging.WARNING):
        if outcome == "refused":
            with pytest.raises(RecipeError, match="the classes of data set 'sounds' must be those"):
                check_same_data({"clips": now}, state, with_tasks=True)
            check_same_data({"clips": now}, state, with_tasks=False)
        else:
            check_same_data({"clips": now}, state, with_tasks=True)
    assert ("the data have changed since this run started" in caplog.text) == bool(outcome)


def test_other_weights_of_clips_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips_of(tmp_path, ROWS)

    def weighted(*weights: int) -> ClipList:
        rows = (f"{name},{weight}" for (name, _), weight in zip(ROWS, weights, strict=True))
        (tmp_path / "list.csv").write_text("\n".join(["path,weight", *rows]))
        return join_sets({"sounds": (CsvDataset(path=tmp_path / "list.csv"), None)})

    check_same_data({"clips": weighted(1, 2, 3, 4)}, state_of(weighted(1, 2, 3, 4)), with_tasks=False)
    assert not caplog.text
    check_same_data({"clips": weighted(1, 2, 3, 4)}, state_of(weighted(4, 3, 2, 1)), with_tasks=False)
    assert "labels or weights): it goes on with other batches" in caplog.text


def test_other_noise_is_told(
    tiny_recipe: Any, make_trainer: Any, make_wav: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_wav("noise/one.wav")
    noise = f"noise={{ratio: 0.2, mean: -6.0, dataset: {{name: folder, path: {tmp_path / 'noise'}}}}}"
    trainer = make_trainer(tiny_recipe("train.epochs=1", noise))
    trainer.step = 1
    trainer.save()
    make_trainer(tiny_recipe("train.epochs=1", noise), resume=True)
    assert "changed" not in caplog.text
    make_wav("noise/two.wav")
    make_trainer(tiny_recipe("train.epochs=1", noise), resume=True)
    assert "the noise has changed since this run started (1 clips then, 2 now" in caplog.text


def test_two_processes_do_not_train_into_one_folder(
    tiny_recipe: Callable[..., object], host: PluginHost, console: Console
) -> None:
    recipe = tiny_recipe()
    with running_alone(recipe.output / recipe.name):
        for resume in (False, "or_start"):
            with pytest.raises(
                RecipeError, match=r"one process at a time, but process \d+ on .* works there"
            ):
                run_recipe(recipe, host, console, resume=resume, overwrite=not resume)
    assert not list((recipe.output / recipe.name).glob("checkpoints/*"))


def test_a_run_that_comes_second_leaves_the_lock_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    with FileLock(lock):
        monkeypatch.setattr(
            Path, "exists", lambda path: False
        )  # as when the first one made the folder just then
        with pytest.raises(RecipeError, match="one process at a time"), running_alone(lock.parent):
            pass
        monkeypatch.undo()
        assert lock.exists()
    with pytest.raises(Timeout), running_alone(tmp_path / "other"):
        raise Timeout("a lock of something that the run uses")
