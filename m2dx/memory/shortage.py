"""Which errors mean that memory ran out."""

from __future__ import annotations

import re

_TEXTS = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|CUDA error: out of memory|CUDA out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|std::bad_alloc|Cannot allocate memory"
)
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) is killed by signal: (Killed|Bus error)")
_WORKER_GONE = re.compile(r"DataLoader worker \(pid\(s\) [\d, ]+\) exited unexpectedly$")


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, of a GPU or of the machine."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and _TEXTS.search(str(error)) is not None


def killed_worker(error: BaseException) -> str | None:
    """What killed a loading process, as the kernel does where memory runs out: "Killed" or "Bus error"; None: nothing.

    torch says so in the error, or in the cause of one that says no more than that the process is gone. Without a cause
    it is taken to be killed; one that crashed or left by itself is not.
    """
    if not isinstance(error, RuntimeError):
        return None
    found = _WORKER.search(str(error))
    if found is not None:
        return found[1]
    if _WORKER_GONE.search(str(error)) is None:
        return None
    return killed_worker(error.__cause__) if isinstance(error.__cause__, RuntimeError) else "Killed"
