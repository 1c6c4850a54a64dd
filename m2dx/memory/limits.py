"""How much memory there is for a process: of a GPU, or of the machine and of the control groups that it is in."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

KEPT_FREE = 0.1
"""Share of the memory that is there which stays free: fragments of the allocator, and what other programs come to."""


@dataclass(frozen=True)
class Memory:
    """A device's memory, bytes."""

    total: int
    available: int  # without pushing anything else out

    @property
    def usable(self) -> int:
        """What training may take."""
        return int(self.available * (1 - KEPT_FREE))


def device_memory(device: torch.device, *, processes: int = 1) -> Memory:
    """The memory that one of `processes` here may take; each has a GPU of its own, but all share the host."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Memory(total, free)
    host = host_memory()
    return Memory(host.total, host.available // processes)


def host_memory() -> Memory:
    """The machine's memory, or that of the tightest control group (a container, a Slurm job) around this process."""
    limits = [_machine(), *_groups()]
    return Memory(min(limit.total for limit in limits), min(limit.available for limit in limits))


def resident_bytes(pid: int | str = "self", *, peak: bool = False) -> int:
    """Memory that a process has (or had at its `peak`), bytes; 0 where the system does not tell, or it has ended."""
    fields = _fields(Path("/proc") / str(pid) / "status")
    if fields:
        return fields.get("VmHWM" if peak else "VmRSS", 0)
    if pid != "self" or sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def private_bytes(pid: int) -> int:
    """Memory that a process shares with no other, bytes; 0 where the system does not tell."""
    fields = _fields(Path("/proc") / str(pid) / "smaps_rollup")
    return fields.get("Private_Clean", 0) + fields.get("Private_Dirty", 0)


def forget_peak() -> None:
    """Lets the peak of `resident_bytes` start anew from now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def shared_memory() -> Memory | None:
    """The room for batches on their way from loading processes (/dev/shm); None: there is no such place."""
    try:
        room = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return None
    return Memory(room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)


def _machine() -> Memory:
    fields = _fields(Path("/proc/meminfo"))
    if fields:
        return Memory(fields["MemTotal"], fields.get("MemAvailable", fields["MemFree"]))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Memory(total, total // 2)  # macOS does not tell simply: half of it


def _groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[Memory]:
    """The limits of the control groups that this process is in, from its own to the outermost (versions 1 and 2)."""
    found = []
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else ("memory.max", "memory.current")
        )
        inner = top / path.lstrip("/")
        for folder in [inner, *inner.parents]:
            if folder != top and top not in folder.parents:
                break
            found += _group(folder, *names)
    return found


def _group(folder: Path, limit_name: str, usage_name: str) -> list[Memory]:
    try:
        limit = (folder / limit_name).read_text(encoding="utf-8").strip()
        usage = int((folder / usage_name).read_text(encoding="utf-8"))
        stat = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    if limit == "max" or int(limit) >= 1 << 60:
        return []
    cached = next((int(line.split()[1]) for line in stat if line.startswith("inactive_file ")), 0)
    return [Memory(int(limit), max(int(limit) - usage + cached, 0))]


def _fields(path: Path) -> dict[str, int]:
    """Lines such as `VmRSS: 12 kB` as bytes; none where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    parts = [line.split() for line in lines]
    return {
        words[0].rstrip(":"): int(words[1]) * 1024 for words in parts if len(words) == 3 and words[2] == "kB"
    }
