"""Loading processes where the system is short of what they need: the same batches, or one line."""

import errno
import multiprocessing
import multiprocessing.reduction
import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from m2dx.contract.errors import AudioError, M2dxError, TrainingError
from m2dx.data import loader, pcm
from m2dx.data.loader import batch_loader

KEYS = [[0, 1], [2, 3], [4, 5]]
Collate = Callable[[Sequence[Tensor]], Any]


class Rows(Dataset[Tensor]):
    """Rows of their own number, in two types; `fails` is called first."""

    def __init__(self, fails: Callable[[], None] = lambda: None) -> None:
        self.fails = fails

    def __getitem__(self, key: int) -> Tensor:
        self.fails()
        return torch.full((1000,), key, dtype=torch.int16)


def stacked(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return pcm.stack(rows), torch.stack([row.double() for row in rows])


def read(rows: Rows, *, workers: int = 2) -> list[Any]:
    return list(batch_loader(rows, KEYS, collate=stacked, workers=workers))


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


FULL = RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")
CLOSED = RuntimeError("unable to open shared memory object </torch_1> in read-write mode")
FILES = OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("where", "name", "error"),
    [
        (torch.UntypedStorage, "_new_shared", FULL),
        (torch.UntypedStorage, "_new_shared", CLOSED),
        (torch.UntypedStorage, "_share_fd_cpu_", FULL),
        (torch.UntypedStorage, "_share_fd_cpu_", CLOSED),
        (multiprocessing.reduction, "DupFd", FILES),
    ],
)
def test_batches_that_cannot_be_shared_are_sent(
    where: Any, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, raising(error))
    for batch, expected in zip(read(Rows()), read(Rows(), workers=0), strict=True):
        assert all(map(torch.equal, batch, expected)) and batch[0].dtype == torch.int16


def test_an_open_file_per_tensor_is_not_had_where_few_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader._Sent, "shared", False)
    monkeypatch.setattr(ForkingPickler, "dumps", raising(AssertionError()))
    sent = loader._Sent((torch.arange(3), "text"))
    values, text = pickle.loads(pickle.dumps(sent))
    assert values.tolist() == [0, 1, 2] and text == "text"


OF_ITEMS = {
    "of the system": OSError(errno.EMFILE, "Too many open files", "a.wav"),
    "of audio": AudioError("none of 100 clips"),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", OF_ITEMS.values(), ids=OF_ITEMS.keys())
def test_errors_of_items_come_as_they_were_raised(error: Exception, workers: int) -> None:
    with pytest.raises(type(error)) as raised:
        read(Rows(raising(error)), workers=workers)
    assert str(raised.value) == str(error)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EAGAIN])
@pytest.mark.parametrize("place", ["Queue", "Event", "Process.start"])
def test_processes_that_cannot_start_are_one_line(
    place: str, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    batches = batch_loader(Rows(), KEYS, collate=stacked, workers=2)
    context: Any = batches.multiprocessing_context
    error = OSError(code, os.strerror(code))
    target = context.Process if place == "Process.start" else context
    monkeypatch.setattr(target, place.rpartition(".")[2], raising(error))
    with pytest.raises(TrainingError) as raised:
        list(batches)
    text = str(raised.value)
    assert "2 loading processes need" in text and os.strerror(code) in text and "data.workers=0" in text
    assert "\n" not in text and isinstance(raised.value, M2dxError)
    assert capfd.readouterr() == ("", "")


def test_signals_to_the_whole_group_leave_workers_to_the_trainer() -> None:
    def signals(rows: Sequence[Tensor]) -> list[Any]:
        assert get_worker_info() is not None
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)]

    for found in batch_loader(Rows(), KEYS[:1], collate=signals, workers=1):
        assert found == [signal.SIG_IGN] * 3


def test_workers_end_with_a_trainer_that_is_killed_while_their_pipes_are_full(tmp_path):
    """The pipe of a worker is open in the other workers too, so that none of them sees it close."""
    trainer = os.fork()
    if trainer == 0:
        try:
            batches = iter(batch_loader(Rows(), KEYS * 20, collate=lambda rows: b"m2dx" * 2**20, workers=2))
            next(batches)
            workers = [str(process.pid) for process in multiprocessing.active_children()]
            (tmp_path / "workers").write_text(" ".join(workers))
        finally:  # else an error would leave a second pytest
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(trainer, 0)
    workers = [int(pid) for pid in (tmp_path / "workers").read_text().split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)
