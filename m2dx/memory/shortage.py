"""Which errors mean that memory ran out."""

from __future__ import annotations

import re

_TEXTS = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|CUDA error: out of memory|CUDA out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|std::bad_alloc|Cannot allocate memory"
)
_WORKER = re.compile(
    r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (is killed by signal: (Killed|Bus error)|exited unexpectedly)"
)


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, of a GPU or of the machine."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and _TEXTS.search(str(error)) is not None


def is_killed_worker(error: BaseException) -> bool:
    """Whether a loading process was killed, as the kernel does where memory runs out."""
    return isinstance(error, RuntimeError) and _WORKER.search(str(error)) is not None
