"""Loads batches of crops in processes of their own, and copies them to the device."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from m2dx.contract.errors import M2dxError
from m2dx.data.crops import Batch, collate_stored

_MOST_WORKERS = 16
_GRACE_SECONDS = 30  # that a worker outlives a SIGTERM


def default_workers(*, processes: int = 1) -> int:
    """Loading processes per training process: one per core that this process may use, shared, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // processes))


def batch_loader(
    dataset: Dataset[Any],
    batches: Any,
    *,
    collate: Callable[[Sequence[Any]], Any] = collate_stored,
    workers: int | None = None,
    prefetch: int = 4,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Gives what `collate` makes of the items of each list of keys in `batches`, in their order.

    By default a `Batch` of crops, for `DeviceCopies`. 0 workers: loaded in this process; None: `default_workers()`.
    Neither `workers` nor `prefetch`, in batches per worker, changes what is given. Errors of m2dx come as they were
    raised, wherever items are loaded.
    """
    workers = default_workers() if workers is None else workers
    return _Loader(
        _BatchesOrErrors(dataset, collate),
        batch_size=None,
        sampler=batches,
        collate_fn=_unchanged,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker if workers else None,
        generator=torch.Generator(),  # or it would draw from torch's own, whose state a resumed run goes on with
        # Forked workers share the list of clips; a spawned one would get a copy each.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        pin_memory=pin_memory,
    )


class DeviceCopies:
    """Gives each batch on the device.

    A GPU copies on a stream of its own. The training loop asks for a batch when it has queued the work on the one
    before, so that this copy runs beside that work, and only what follows waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        if self._stream is None:
            return batch.to(self.device)
        working = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            copied = batch.to(self.device)
        working.wait_stream(self._stream)
        copied.record_stream(working)
        return copied


class _BatchesOrErrors(Dataset[Any]):
    """Whole batches; errors of m2dx as such: raised in a worker, their text would become that of its traceback."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[Sequence[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, keys: Sequence[Any]) -> Any:
        try:
            return self.collate([self.dataset[key] for key in keys])
        except M2dxError as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch


class _Loader(DataLoader[Any]):
    """Raises the errors that it gets as batches."""

    def __iter__(self) -> Any:
        return map(_checked, super().__iter__())


def _checked(batch: Any) -> Any:
    if isinstance(batch, M2dxError):
        raise batch
    return batch


def _start_worker(worker_id: int) -> None:
    torch.set_num_threads(1)
    # A Ctrl-C or SIGTERM to the whole process group is the trainer's to act on: it saves, then stops its workers.
    # Were they gone before, DataLoader would raise in the middle of the save. The alarm ends a worker whose
    # trainer does not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(signum: int, frame: FrameType | None) -> None:
    signal.alarm(_GRACE_SECONDS)
