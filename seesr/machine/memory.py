"""How much memory a device or the machine has, and how much of it this process used."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import psutil
import torch

from seesr.machine.allocator import trim

CONTROL_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", ""),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_",
    ),
)
"""Limit, use and statistics of a container's memory, and what the names in these begin with, in version 2 and 1."""
DROPPABLE = ("inactive_file", "active_file")
"""What a container's statistics call pages of files, which the system drops when memory is wanted."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """(free, total) memory of the device, or of the machine when it runs on the CPU.

    What PyTorch keeps for later on a GPU counts as free; of a machine, only what its container may use.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total
    memory = psutil.virtual_memory()
    if device.type == "mps":
        return memory.available + torch.mps.driver_allocated_memory() - torch.mps.current_allocated_memory(), memory.total
    free, total = _container_memory()
    return min(memory.available, free), min(memory.total, total)


def _container_memory() -> tuple[float, float]:
    """(free, total) of this process's control group, infinite without one; files that can be dropped count as free."""
    for limit, used, statistics, prefix in CONTROL_GROUPS:
        try:
            total, taken = int(Path(limit).read_text()), int(Path(used).read_text())
            lines = dict(line.split() for line in Path(statistics).read_text().splitlines())
        except (OSError, ValueError):
            continue
        return max(0, total - taken + sum(int(lines.get(prefix + name, 0)) for name in DROPPABLE)), total
    return math.inf, math.inf


def used_bytes(device: torch.device) -> int:
    """What this process uses of the device's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return psutil.Process().memory_info().rss


def free_memory(device: torch.device) -> None:
    """Gives back what nothing refers to any more."""
    trim()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class PeakMemory:
    """The most that this process used of the device's memory (or the machine's) since this was made, in bytes.

    Where the system does not let the process reset its mark (`resets`), the peak is that of the process's whole life.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.resets = device, True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            with CLEAR.open("r+") as file:
                file.write("5")
        except OSError:
            self.resets = False

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        for line in STATUS.read_text().splitlines() if STATUS.exists() else ():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        if sys.platform == "win32":
            return psutil.Process().memory_info().peak_wset
        import resource

        # macOS counts in bytes, others in kilobytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
