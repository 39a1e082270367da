"""How much memory a device or the machine has, and how much of it this process uses."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from seesr.machine.allocator import trim_heap

CGroupFiles = Sequence[tuple[str, str, str, str]]
CGROUP_FILES: CGroupFiles = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", ""),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_",
    ),
)
"""For cgroup version 2 and 1: files with the limit, the usage and the statistics, and the prefix of keys in the last."""
RECLAIMABLE = ("inactive_file", "active_file")
"""Statistics that count the file cache, which the system reclaims when memory is short."""
PROC_STATUS, PROC_CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory_bytes(device: torch.device, cgroup_files: CGroupFiles = CGROUP_FILES) -> tuple[float, float]:
    """(free, total) bytes of the device's memory, or of the machine's for the CPU.

    Memory that PyTorch caches on a GPU counts as free. In a container the memory is limited to what the container may use.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total
    memory = psutil.virtual_memory()
    if device.type == "mps":
        return memory.available + torch.mps.driver_allocated_memory() - torch.mps.current_allocated_memory(), memory.total
    free, total = _cgroup_memory(cgroup_files)
    return min(memory.available, free), min(memory.total, total)


def _cgroup_memory(files: CGroupFiles) -> tuple[float, float]:
    """(free, total) bytes of this process's cgroup, infinite without a limit; the file cache counts as free."""
    for limit, usage, statistics, prefix in files:
        try:
            total, used = int(Path(limit).read_text()), int(Path(usage).read_text())
            lines = dict(line.split() for line in Path(statistics).read_text().splitlines())
        except (OSError, ValueError):
            continue
        return max(0, total - used + sum(int(lines.get(prefix + name, 0)) for name in RECLAIMABLE)), total
    return math.inf, math.inf


def used_bytes(device: torch.device) -> int:
    """Bytes that this process uses of the device's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return psutil.Process().memory_info().rss


def release_memory(device: torch.device) -> None:
    """Returns unreferenced host memory and PyTorch's cache on `device` to the system."""
    trim_heap()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class PeakMemory:
    """Peak bytes that this process used of the device's memory (or the machine's) since the object was created.

    Where the system cannot reset the peak (`resets` is False), it is the peak since the process started.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.resets = device, True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            with PROC_CLEAR_REFS.open("r+") as file:
                file.write("5")
        except OSError:
            self.resets = False

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        for line in PROC_STATUS.read_text().splitlines() if PROC_STATUS.exists() else ():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        if sys.platform == "win32":
            return psutil.Process().memory_info().peak_wset
        import resource

        # macOS reports bytes, other systems kilobytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
