"""How much memory there is, and errors that say what to set where it ran out."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from m2dx.contract.errors import MemoryShortageError
from m2dx.contract.wording import gigabytes
from m2dx.recipe.schema import Recipe

Advice = Callable[[], list[str]]
"""What to set, each thing a sentence without its full stop."""

_ASKED = re.compile(
    r"you tried to allocate (?P<bytes>\d+) bytes|[Tt]ried to allocate (?P<number>[\d.]+) (?P<unit>[KMGT]?i?B)"
)
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SHORTAGE = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|CUDA error: out of memory|CUDA out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|std::bad_alloc|Cannot allocate memory"
)
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) is killed by signal: (Killed|Bus error)")
_WORKER_GONE = re.compile(r"DataLoader worker \(pid\(s\) [\d, ]+\) exited unexpectedly$")


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
    total = fields.get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # macOS does not say in a simple way what is free: half of the memory is taken for it.
    limits = [Memory(total, fields.get("MemAvailable", total // 2)), *control_groups()]
    return Memory(min(limit.total for limit in limits), min(limit.available for limit in limits))


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
                cached = re.search(
                    r"^inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE
                )
                free = limit - usage + (int(cached[1]) if cached else 0)
                found.append(Memory(limit, max(free, 0)))
    return found


def kilobyte_fields(path: Path) -> dict[str, int]:
    """Lines such as `VmRSS: 12 kB` as bytes; none where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    return {
        name: int(number) * 1024 for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    }


@contextlib.contextmanager
def memory_advice(during: str, advice: Advice) -> Iterator[None]:
    """Raises MemoryShortageError, with what was asked, what there is and what to do, where memory runs out inside.

    The error of torch or of the system stays as its cause.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        killed = killed_worker(error)
        if killed is not None:
            why, helps = _about_worker(killed)
            text = f"a loading process was killed during {during}: {why}"
        elif is_shortage(error):
            asked, helps = _asked(str(error)), []
            needed = "more memory" if asked is None else f"{gigabytes(asked)} more"
            text = f"memory ran out during {during}: {needed} was asked for, and {_there(error)}"
        else:
            raise
        lines = [f"{text}. What helps:", *(f"- {line}" for line in [*helps, *advice()])]
        raise MemoryShortageError("\n".join(lines)) from error


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, of a GPU or of the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and _SHORTAGE.search(str(error)) is not None


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


def training_advice(recipe: Recipe, processes: int) -> list[str]:
    """What to set where training ran out of memory."""
    train = recipe.train
    accumulate = 1 if train.accumulate == "auto" else train.accumulate
    part = train.batch_size // processes
    following = next((value for value in range(accumulate + 1, part + 1) if part % value == 0), None)
    if following is not None:
        lines = [
            f"train.accumulate={following}: {part // following} clips at a time instead of "
            f"{max(part // accumulate, 1)}, the effective batch of {train.batch_size} stays; or train.accumulate=auto"
        ]
    else:
        lines = [
            "a smaller model (model.size, model.depth), shorter crops (audio.crop_seconds) or larger patches "
            "(model.patch_size): one clip at a time is the least there is"
        ]
    if train.precision == "fp32":
        lines.append("train.precision=bf16, which takes less for each clip")
    if processes > 1 and train.sharding == "none":
        lines.append(
            "train.sharding=fsdp, by which the processes share the weights and the optimizer's state"
        )
    return [
        *lines,
        "m2dx train RECIPE --dry-run-memory, which prints what each size of the micro-batch takes here",
    ]


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
    return [
        *lines,
        "train.device=cpu with `m2dx evaluate`, where the machine has more memory than its GPU",
        "other programs on the device may be ended, and `m2dx evaluate RUN RECIPE` scores the run again",
    ]


def killed_evaluation() -> str:
    """What to say of an evaluation process that the system killed."""
    return (
        f"the system kills a process where memory runs out (free now: {gigabytes(host_memory().available)}); a "
        "smaller batch_size of the evaluators, fewer evaluation.threads, or no evaluation.every (scores then follow "
        "the training) take less beside it"
    )


def _about_worker(killed: str) -> tuple[str, list[str]]:
    """Why a loading process was killed, and what helps."""
    fewer = "fewer loading processes (data.workers): each has its own memory and several batches ready"
    if killed == "Bus error":
        with contextlib.suppress(OSError):
            room = os.statvfs("/dev/shm")
            free = Memory(room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)
            return f"batches on their way did not fit into /dev/shm, which has {free} free", [
                "more room in /dev/shm (of a container: docker run --shm-size=8g, or --ipc=host)",
                fewer,
            ]
    free_now = gigabytes(host_memory().available)
    return f"as the system does where memory runs out ({free_now} is free now)", [fewer]


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
    """What the device has that an error is of."""
    if torch.cuda.is_available() and ("CUDA" in str(error) or "CUBLAS" in str(error)):
        free, total = torch.cuda.mem_get_info()
        return f"the GPU has {Memory(total, free)} free"
    capacity = re.search(r"total capacity of ([\d.]+ \wi?B)(?: of which ([\d.]+ \wi?B) is free)?", str(error))
    if capacity is not None:
        return f"the GPU has {capacity[1]}" + ("" if capacity[2] is None else f", {capacity[2]} of it free")
    told = f"{host_memory()} is free"
    if os.name != "posix":
        return told
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    limited = f" (this process is limited to {gigabytes(limit)}: ulimit -v)"
    return told if limit == resource.RLIM_INFINITY else told + limited
