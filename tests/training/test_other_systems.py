"""What macOS and Windows lack, or do otherwise: each use has a way there. Nobody has run m2dx on Windows."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from m2dx.contract.atomic import replace_text
from m2dx.contract.errors import RecipeError
from m2dx.contract.parent import end_with_parent
from m2dx.data.loader import batch_loader, default_workers
from m2dx.data.reading import read_wav
from m2dx.model.precision import autocast, choose_precision
from m2dx.training import memory, micro_batch
from m2dx.training.child import end_child, kill_child, start_child
from m2dx.training.distributed import join_processes, pick_device
from m2dx.training.optimizers import AdamW
from m2dx.training.run_folder import running_alone
from m2dx.training.signals import StopRequests
from m2dx.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("m2dx/**/*.py"), *ROOT.glob("plugins/*/m2dx_*/**/*.py")]
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios"}
POSIX_NAMES = {
    "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1", "chown", "fork", "geteuid", "getpgid", "getpgrp", "getuid",
    "killpg", "mkfifo", "nice", "pread", "preadv", "sched_getaffinity", "setpgid", "setsid", "sysconf", "umask",
    "uname", "waitpid",
}  # fmt: skip
GUARDED = {
    ("m2dx/contract/parent.py", "getpgrp"),
    ("m2dx/contract/parent.py", "killpg"),
    ("m2dx/contract/parent.py", "SIGKILL"),
    ("m2dx/data/loader.py", "SIGCHLD"),
    ("m2dx/data/loader.py", "sched_getaffinity"),
    ("m2dx/data/loader.py", "sysconf"),
    ("m2dx/data/pcm.py", "pread"),
    ("m2dx/data/pcm.py", "preadv"),
    ("m2dx/jobs/evaluation_process.py", "nice"),
    ("m2dx/training/child.py", "killpg"),
    ("m2dx/training/memory.py", "sysconf"),
    ("m2dx/training/micro_batch.py", "resource"),
}
"""Uses that are behind a question whether the system has it, each tried below, by file and name."""
ELSEWHERE = {"m2dx-pack", "m2dx-superb"}
"""Plugins for Linux and macOS: shards are read with pread; s3prl needs them."""


def test_what_only_some_systems_have_is_behind_a_question() -> None:
    found = set[tuple[str, str]]()
    names = re.compile(
        rf"\b(?:os|signal)\.({'|'.join(POSIX_NAMES)})\b|^ *import ({'|'.join(POSIX_MODULES)})\b", re.M
    )
    for source in SOURCES:
        name, text = source.relative_to(ROOT).as_posix(), source.read_text(encoding="utf-8")
        if not any(plugin in name for plugin in ELSEWHERE):
            found |= {(name, match[1] or match[2]) for match in names.finditer(text)}
            assert not re.search(rf"^import ({'|'.join(POSIX_MODULES)})\b", text, re.M), name
    assert found == GUARDED


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what Windows has not, but with Linux's paths."""
    for name in POSIX_NAMES - {"waitpid"}:  # Python's own
        monkeypatch.delattr(os, name, raising=False)
        if name != "SIGCHLD":  # torch's own
            monkeypatch.delattr(signal, name, raising=False)
    for name in POSIX_MODULES - {"posix"}:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(memory, "kilobyte_fields", lambda path: {})
    monkeypatch.setattr(micro_batch, "kilobyte_fields", lambda path: {})


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = start_child([sys.executable, "-c", "import time; time.sleep(60)"], output=subprocess.DEVNULL)
    yield child
    child.terminate()


@pytest.mark.parametrize("end", [kill_child, end_child])
def test_children_end(windows: None, sleeper: Any, end: Callable[[Any], None]) -> None:
    end(sleeper)
    assert sleeper.poll() is not None


def test_nothing_is_watched_where_parents_keep_their_id(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.setattr(os, "name", "nt")
    end_with_parent(0)
    assert threading.active_count() == before


def test_files_are_written_where_folders_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "open", None)
    replace_text(path, "whole")
    monkeypatch.undo()
    assert path.read_text() == "whole"


def test_memory_is_asked_of_windows(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(kilobytes: Any) -> None:
        kilobytes._obj.value = 16 * 1024**2

    kernel = SimpleNamespace(GetPhysicallyInstalledSystemMemory=installed)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(memory, "control_groups", list)
    assert memory.host_memory() == memory.Memory(16 * 1024**3, 8 * 1024**3)
    with pytest.raises(RecipeError, match=r"train\.accumulate must be a number on Windows"):
        micro_batch._limit_memory(torch.device("cpu"), 0, 1)


def test_a_locked_file_that_nobody_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Any:
        raise PermissionError(13, "locked by another process")

    monkeypatch.setattr(Path, "write_text", refused)
    monkeypatch.setattr(Path, "read_text", refused)
    with running_alone(tmp_path / "run"):
        pass
    (tmp_path / "run").mkdir(exist_ok=True)
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(RecipeError, match="but another process works"),
        running_alone(tmp_path / "run"),
    ):
        pass


def test_signals_processors_and_samples(windows: None, make_wav: Callable[..., Path]) -> None:
    with StopRequests() as requests:
        signal.raise_signal(signal.SIGTERM)
    assert requests.received == signal.SIGTERM and default_workers() >= 1
    assert read_wav(make_wav(), sample_rate=16_000).shape == (8000,)


def test_samples_are_those_of_the_other_way(
    make_wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_wav()
    before = read_wav(path, sample_rate=8000)
    monkeypatch.delattr(os, "preadv")
    monkeypatch.delattr(os, "pread")
    np.testing.assert_array_equal(read_wav(path, sample_rate=8000), before)


def test_loading_processes_start_anew(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no fork, what they load is pickled."""
    trainer = make_trainer(tiny_recipe(labels=True, noise=True))
    monkeypatch.setattr(sys, "platform", "darwin")
    loader = batch_loader(trainer.run.crops, [], workers=1)
    assert loader.multiprocessing_context is None
    again = pickle.loads(pickle.dumps(loader.dataset))
    assert len(again.dataset) == len(trainer.run.crops)
    pickle.dumps([loader.worker_init_fn, loader.collate_fn])


@pytest.mark.slow
def test_a_training_whose_loading_processes_are_spawned(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for method in (None, "spawn"):
        if method is not None:
            monkeypatch.setattr(sys, "platform", "darwin")
            multiprocessing.set_start_method(method, force=True)
        try:
            recipe = tiny_recipe("data.workers=1", f"name=by-{method or 'fork'}")
            losses.append(make_trainer(recipe).fit().last_metrics["loss"])
        finally:
            multiprocessing.set_start_method(None, force=True)
    assert losses[0] == losses[1]


# A Mac's GPU


def test_mps_is_a_device_of_recipes(tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny_recipe("train.device=mps").train.device == "mps"
    with pytest.raises(RecipeError, match=r"train\.device is mps, but torch sees no GPU of a Mac"):
        pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == torch.device("mps")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="must be cpu or cuda with 2 processes, but is mps"):
        join_processes("mps")
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        choose_precision("fp16", torch.device("mps"))
    assert choose_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_context_of_mps(precision: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), autocast(precision, torch.device("mps")):
        pass
    with autocast(precision, torch.device("cpu")):
        pass


def test_the_optimizer_of_mps_is_not_fused() -> None:
    parameter = nn.Parameter(torch.zeros(2, 2, device="meta"))
    assert AdamW([("a", parameter)], 1e-3, 0.05, (0.9, 0.95)).defaults["fused"] is False


class _NoFloat64(TorchDispatchMode):
    """Counts the float64 tensors of more than one value, which mps has not."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [x for x in (*args, result) if isinstance(x, Tensor)]
        if any(x.dtype == torch.float64 and x.ndim for x in given):
            self.found.append(str(func))
        return result


def test_a_step_has_no_float64(tiny_recipe: Any, make_trainer: Callable[..., Trainer]) -> None:
    """Which mps lacks; batches are drawn before it, on the CPU."""
    trainer = make_trainer(tiny_recipe(labels=True, noise=True))
    batches = list(
        batch_loader(trainer.run.crops, trainer.run.batches(start_step=0, total_steps=1), workers=0)
    )
    with _NoFloat64() as mode:
        trainer.train_step(iter(batches))
    assert mode.found == []
