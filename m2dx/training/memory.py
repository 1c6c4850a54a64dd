"""Errors that say what to do where memory ran out, in the place of torch's own, which stay as their cause."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator

from m2dx.contract.errors import MemoryShortageError
from m2dx.contract.wording import gigabytes
from m2dx.memory.limits import host_memory, shared_memory
from m2dx.recipe.schema import Recipe

_ASKED = re.compile(
    r"you tried to allocate (?P<bytes>\d+) bytes|[Tt]ried to allocate (?P<number>[\d.]+) (?P<unit>[KMGT]?i?B)"
)
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

Advice = Callable[[], list[str]]
"""What to set, each thing a sentence without its full stop."""


@contextlib.contextmanager
def memory_advice(during: str, advice: Advice) -> Iterator[None]:
    """Raises MemoryShortageError, with what was asked, what there is and what to do, where memory runs out inside."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        killed = killed_worker(error)
        if killed is not None:
            raise MemoryShortageError(_killed_worker(killed, during, advice)) from error
        if not is_shortage(error):
            raise
        asked = _asked(str(error))
        needed = "more memory" if asked is None else f"{gigabytes(asked)} more"
        lines = [f"memory ran out during {during}: {needed} was asked for, and {_there(error)}. What helps:"]
        raise MemoryShortageError("\n".join([*lines, *(f"- {line}" for line in advice())])) from error


def training_advice(recipe: Recipe, processes: int) -> list[str]:
    """What to set where training ran out of memory."""
    train = recipe.train
    accumulate = 1 if train.accumulate == "auto" else train.accumulate
    clips = max(train.batch_size // (accumulate * processes), 1)
    lines = []
    following = next_accumulation(train.batch_size, accumulate, processes)
    if following is not None:
        fewer = train.batch_size // (following * processes)
        lines.append(
            f"train.accumulate={following}: {fewer} clips at a time instead of {clips}, the effective batch of "
            f"{train.batch_size} stays; or train.accumulate=auto"
        )
    else:
        lines.append(
            "a smaller model (model.size, model.depth), shorter crops (audio.crop_seconds) or larger patches "
            "(model.patch_size): one clip at a time is the least there is"
        )
    if train.precision == "fp32":
        lines.append("train.precision=bf16, which takes less for each clip")
    if processes > 1 and train.sharding == "none":
        lines.append(
            "train.sharding=fsdp, by which the processes share the weights and the optimizer's state"
        )
    lines.append(
        "m2dx train RECIPE --dry-run-memory, which prints what each size of the micro-batch takes here"
    )
    return lines


def next_accumulation(batch_size: int, accumulate: int, processes: int) -> int | None:
    """The next valid `train.accumulate` above one; None: a pass has one clip."""
    part = batch_size // processes
    return next((value for value in range(accumulate + 1, part + 1) if part % value == 0), None)


def evaluation_advice(name: str, evaluator: object) -> list[str]:
    """What to set where an evaluator ran out of memory; `name` is its own in the recipe."""
    path = f"evaluation.evaluators.{name}"
    options = getattr(evaluator, "settings", evaluator)
    pieces, batch = getattr(options, "accumulate", None), getattr(options, "batch_size", None)
    lines = []
    if isinstance(pieces, int):
        lines.append(f"{path}.accumulate={2 * pieces}: each batch in {2 * pieces} pieces instead of {pieces}")
    if isinstance(batch, int) and batch > 1:
        lines.append(f"{path}.batch_size={batch // 2} instead of {batch}, which changes the training")
    lines += [
        "train.device=cpu with `m2dx evaluate`, where the machine has more memory than its GPU",
        "other programs on the device may be ended, and `m2dx evaluate RUN RECIPE` scores the run again",
    ]
    return lines


def killed_evaluation() -> str:
    """What to say of an evaluation process that the system killed."""
    return (
        f"the system kills a process where memory runs out (free now: {gigabytes(host_memory().available)}); a "
        "smaller batch_size of the evaluators, fewer evaluation.threads, or no evaluation.every (scores then follow "
        "the training) take less beside it"
    )


def _killed_worker(killed: str, during: str, advice: Advice) -> str:
    bus = killed == "Bus error"
    room = shared_memory()
    if bus and room is not None:
        why = (
            f"batches on their way did not fit into /dev/shm, which has {gigabytes(room.available)} of "
            f"{gigabytes(room.total)} free"
        )
        first = "more room in /dev/shm (of a container: docker run --shm-size=8g, or --ipc=host)"
    else:
        why = f"as the system does where memory runs out ({gigabytes(host_memory().available)} is free now)"
        first = "fewer loading processes (data.workers): each has its own memory and several batches ready"
    lines = [f"a loading process was killed during {during}: {why}. What helps:", f"- {first}"]
    if bus:
        lines.append("- fewer loading processes (data.workers), since each has several batches ready")
    return "\n".join([*lines, *(f"- {line}" for line in advice())])


def _asked(text: str) -> int | None:
    """Bytes that an allocator was asked for, as its error says."""
    found = _ASKED.search(text)
    if found is None:
        return None
    if found["bytes"]:
        return int(found["bytes"])
    unit = found["unit"] if found["unit"] in _UNITS else found["unit"].replace("B", "iB")
    return int(float(found["number"]) * _UNITS[unit])


def _there(error: BaseException) -> str:
    import torch

    if torch.cuda.is_available() and ("CUDA" in str(error) or "CUBLAS" in str(error)):
        free, total = torch.cuda.mem_get_info()
        return f"the GPU has {gigabytes(free)} of {gigabytes(total)} free"
    capacity = re.search(r"total capacity of ([\d.]+ \wi?B)(?: of which ([\d.]+ \wi?B) is free)?", str(error))
    if capacity is not None:
        return f"the GPU has {capacity[1]}" + ("" if capacity[2] is None else f", {capacity[2]} of it free")
    memory, limit = host_memory(), _address_limit()
    told = f"{gigabytes(memory.available)} of {gigabytes(memory.total)} is free"
    return told if limit is None else f"{told} (this process is limited to {gigabytes(limit)}: ulimit -v)"


def _address_limit() -> int | None:
    if os.name != "posix":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


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
