"""Loads batches of crops in processes of their own, and copies them to the device."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from m2dx.contract.errors import M2dxError, TrainingError
from m2dx.contract.parent import end_with_parent
from m2dx.data.crops import Batch, collate

_MOST_WORKERS = 16


def default_workers(*, processes: int = 1) -> int:
    """Loading processes per training process: one per core that this process may use, shared, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // processes))


def batch_loader(
    dataset: Dataset[Any],
    batches: Any,
    *,
    collate: Callable[[Sequence[Any]], Any] = collate,
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
    """Whole batches; errors of m2dx and of the system as such, not as the text of a worker's traceback."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[Sequence[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, keys: Sequence[Any]) -> Any:
        try:
            batch = self.collate([self.dataset[key] for key in keys])
        except (M2dxError, OSError) as error:
            return error
        return batch if get_worker_info() is None else _Sent(batch)


class _Sent:
    """A batch on its way out of a worker, pickled already: a thread of DataLoader's would lose what it cannot pickle.

    Its tensors are shared, each by an open file. Where few may be open, or /dev/shm is full, their values are sent.
    """

    shared = not hasattr(os, "sysconf") or not 0 < os.sysconf("SC_OPEN_MAX") < 512

    def __init__(self, batch: Any) -> None:
        if _Sent.shared:
            try:
                self._pickled = bytes(ForkingPickler.dumps(batch))
                return
            except (RuntimeError, OSError):
                _Sent.shared = False
        self._pickled = pickle.dumps(batch)

    def __reduce__(self) -> Any:
        return pickle.loads, (self._pickled,)


def _unchanged(batch: Any) -> Any:
    return batch


class _Loader(DataLoader[Any]):
    """Raises the errors that it gets as batches; TrainingError where the system has no room for its workers."""

    def __iter__(self) -> Any:
        try:
            batches = super().__iter__()
        except OSError as error:
            # The unfinished iterator goes with the traceback that holds it, and would print one of its own.
            hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
            error.__traceback__, sys.unraisablehook = None, hook
            raise TrainingError(
                f"{self.num_workers} loading processes need room in /dev/shm, open files (ulimit -n) and processes "
                f"(ulimit -u), but the system says: {error.strerror}; allow more, or set data.workers=0 (--workers 0)"
            ) from error
        try:
            for batch in batches:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            del batches  # ends the workers now: an error keeps this frame


def _start_worker(worker_id: int) -> None:
    torch.set_num_threads(1)
    # Where the trainer is killed, a worker would wait for ever: its full pipe to the trainer stays open, in itself.
    end_with_parent(os.getppid())
    # A signal to the whole process group is the trainer's to act on: it saves, then stops its workers.
    # Were they gone before, DataLoader would raise in the middle of the save.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Ends the workers of a loop that an error has ended; Python would send SIGTERM, and wait for them."""
    for process in multiprocessing.active_children():
        if process.daemon:
            with contextlib.suppress(AttributeError):  # on Windows, which has neither it nor the handler
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # DataLoader's handler would raise
            process.kill()
