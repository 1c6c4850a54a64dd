"""How much memory there is, and errors that say what to set where it ran out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from m2dx.contract.errors import MemoryShortageError
from m2dx.contract.wording import gigabytes
from m2dx.recipe.schema import Recipe

_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]i?B)")
_SHORTAGE = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|CUDA error: out of memory|CUDA out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|std::bad_alloc|Cannot allocate memory"
)
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) is killed by signal: Killed")
_WORKER_GONE = re.compile(r"DataLoader worker \(pid\(s\) [\d, ]+\) exited unexpectedly$")
_FEWER = "fewer loading processes (data.workers): each has its own memory and several batches ready"


@dataclass(frozen=True)
class Memory:
    """The memory of a machine, a GPU or a container, bytes."""

    total: int
    available: int  # without pushing anything else out

    def __str__(self) -> str:
        return f"{gigabytes(self.available)} of {gigabytes(self.total)}"


def host_memory() -> Memory:
    """The machine's memory, or that of the tightest control group around this process."""
    fields = kilobyte_fields(Path("/proc/meminfo"))
    total = fields.get("MemTotal") or _installed_bytes()
    # Elsewhere, nothing says in a simple way what is free: half of the memory is taken for it.
    limits = [Memory(total, fields.get("MemAvailable", total // 2)), *control_groups()]
    return Memory(min(limit.total for limit in limits), min(limit.available for limit in limits))


def _installed_bytes() -> int:
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kilobytes = ctypes.c_ulonglong()  # on Windows
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
    return kilobytes.value * 1024


def control_groups(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[Memory]:
    """The limits of the control groups (version 2) around this process, such as a container or a Slurm job."""
    found = []
    with contextlib.suppress(OSError):
        inner = root / own.read_text(encoding="utf-8").rpartition("::")[2].strip().lstrip("/")
        for folder in (inner, *inner.parents):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                limit, usage = (
                    int((folder / name).read_text(encoding="utf-8"))
                    for name in ("memory.max", "memory.current")
                )
                fields = (folder / "memory.stat").read_text(encoding="utf-8")
                cached = re.search(r"^inactive_file (\d+)", fields, re.MULTILINE)
                free = limit - usage + (int(cached[1]) if cached else 0)
                found.append(Memory(limit, max(free, 0)))
    return found


def kilobyte_fields(path: Path) -> dict[str, int]:
    """Lines such as `VmRSS: 12 kB` as bytes; none where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    return {name: int(kb) * 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


@contextlib.contextmanager
def memory_advice(during: str, advice: Callable[[], list[str]]) -> Iterator[None]:
    """Where memory runs out inside, raises MemoryShortageError with what was asked, what there is and the advice."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        killed = worker_was_killed(error)
        if not killed and not is_shortage(error):
            raise
        what = "a loading process was killed" if killed else "memory ran out"
        why = "as the system does where memory runs out" if killed else _asked_and_there(error)
        helps = [_FEWER, *advice()] if killed else advice()
        lines = [f"{what} during {during}: {why}. What helps:", *(f"- {line}" for line in helps)]
        raise MemoryShortageError("\n".join(lines)) from error


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, of a GPU or of the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and _SHORTAGE.search(str(error)) is not None


def worker_was_killed(error: BaseException) -> bool:
    """Whether a loading process was killed, as the kernel does where memory runs out.

    torch says so in the error, or in the cause of one that says no more than that the process is gone. Without a cause
    it is taken to be killed; one that crashed or left by itself is not.
    """
    if not isinstance(error, RuntimeError):
        return False
    cause = error.__cause__ if _WORKER_GONE.search(str(error)) else error
    return not isinstance(cause, RuntimeError) or _WORKER.search(str(cause)) is not None


def training_advice(recipe: Recipe, processes: int) -> list[str]:
    """What to set where training ran out of memory."""
    train = recipe.train
    accumulate = 1 if train.accumulate == "auto" else train.accumulate
    part = train.batch_size // processes
    following = next((value for value in range(accumulate + 1, part + 1) if part % value == 0), 0)
    lines = {
        f"train.accumulate={following}: {part // (following or 1)} clips at a time instead of "
        f"{max(part // accumulate, 1)}, the effective batch of {train.batch_size} stays; or "
        "train.accumulate=auto": following > 0,
        "a smaller model (model.size, model.depth), shorter crops (audio.crop_seconds) or larger patches "
        "(model.patch_size): one clip at a time is the least there is": following == 0,
        "train.precision=bf16, which takes less for each clip": train.precision == "fp32",
        "train.sharding=fsdp, by which the processes share the weights and the optimizer's state": (
            processes > 1 and train.sharding == "none"
        ),
        "another GPU, where one is free: CUDA_VISIBLE_DEVICES=1, 2 ...": torch.cuda.device_count()
        > processes,
        "m2dx train RECIPE --dry-run-memory, which prints what each size of the micro-batch takes here": True,
    }
    return [line for line, holds in lines.items() if holds]


def evaluation_advice(name: str, evaluator: object) -> list[str]:
    """What to set where an evaluator ran out of memory; `name` is its own in the recipe."""
    path = f"evaluation.evaluators.{name}"
    options = getattr(evaluator, "settings", evaluator)
    pieces, batch = getattr(options, "accumulate", None), getattr(options, "batch_size", None)
    lines = [
        "train.device=cpu with `m2dx evaluate`, where the machine has more memory than its GPU",
        "other programs on the device may be ended, and `m2dx evaluate RUN RECIPE` scores the run again",
    ]
    if isinstance(batch, int) and batch > 1:
        lines.insert(0, f"{path}.batch_size={batch // 2} instead of {batch}, which changes the training")
    if isinstance(pieces, int):
        more = 2 * pieces
        lines.insert(0, f"{path}.accumulate={more}: each batch in {more} pieces instead of {pieces}")
    return lines


KILLED_EVALUATION = (
    "the system kills a process where memory runs out; a smaller batch_size of the evaluators, fewer "
    "evaluation.threads, or no evaluation.every (scores then follow the training) take less beside it"
)


def _asked_and_there(error: BaseException) -> str:
    """What an allocator was asked for, as its error says, and what its device has."""
    asked, needed = _ASKED.search(str(error)), "more memory"
    if asked is not None:
        needed = f"{gigabytes(int(asked[1])) if asked[2] == 'bytes' else ' '.join(asked.groups())} more"
    there = f"{host_memory()} is free"
    capacity = re.search(r"total capacity of ([\d.]+ \wi?B)(?: of which ([\d.]+ \wi?B) is free)?", str(error))
    if torch.cuda.is_available() and ("CUDA" in str(error) or "CUBLAS" in str(error)):
        free, total = torch.cuda.mem_get_info()
        there = f"the GPU has {Memory(total, free)} free"
    elif capacity is not None:
        there = f"the GPU has {capacity[1]}" + (f", {capacity[2]} of it free" if capacity[2] else "")
    return f"{needed} was asked for, and {there}"
