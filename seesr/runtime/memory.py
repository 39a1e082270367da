"""How much memory there is, how much was used, and what an out-of-memory error looks like."""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from seesr.errors import OutOfMemoryError

ALLOCATOR_WORDS = (
    *("can't allocate memory", "not enough memory", "cannot allocate memory", "backend out of memory"),
    *("cuda error: out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "invalid buffer size"),
)
"""How the allocators of the host, MPS, CUDA and its libraries say it, in small letters."""
CUDNN_WORDS = ("unable to find an engine to execute this computation", "unable to find a valid cudnn algorithm")
"""What PyTorch says where each way to compute a convolution ran out of memory; or where there is none."""
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
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
"""glibc's `M_TRIM_THRESHOLD` and so on of mallopt(3)."""
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
"""What they are in a process that frees large pieces: the two thresholds grow to that by themselves."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that a device's or the machine's memory ran out; nothing else is a reason to try again."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    told = str(error).lower()
    return any(words in told for words in ALLOCATOR_WORDS) or (any(words in told for words in CUDNN_WORDS) and _is_scarce())


def _is_scarce() -> bool:
    """Whether less than half of a GPU's memory is free."""
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (1, 1)
    return free < total / 2


@contextmanager
def told_without_memory(sentence: str) -> Iterator[None]:
    """Raises OutOfMemoryError with this sentence where memory runs out; any other error goes on as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        forget_frames(error)
        raise OutOfMemoryError(sentence) from None


def forget_frames(error: BaseException) -> None:
    """Lets go of all that an error's traceback holds, of which the tensors of what failed are the most."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None


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


def trim() -> None:
    """Gives host memory that nothing refers to any more back to the system.

    glibc keeps freed memory for what comes next, in pieces that the next picture may not fit into: a server would grow.
    """
    gc.collect()
    if c := _glibc():
        c.malloc_trim(0)


@contextmanager
def keeping_freed_memory(expected: float) -> Iterator[None]:
    """The host memory that layers free stays with the process while this lasts, then goes back to the system.

    Otherwise glibc maps each large map anew, and the system clears it page by page: on a CPU with AMX that takes as long as
    the convolution that fills it. The first `expected` bytes come in huge pages where the system has them. What is kept may
    not fit what comes next: the peak grows by about a tenth. Works on threads that share the main arena (`share_arena`).
    """
    c = _glibc()
    if c is None:
        yield
        return
    c.mallopt(MMAP_MAX, 0)
    c.mallopt(TRIM_THRESHOLD, -1)
    _take_huge_pages(c, int(expected))
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            c.mallopt(parameter, value)
        c.malloc_trim(0)


def share_arena() -> None:
    """Threads that begin from now on take memory where the main thread does: of others glibc maps large pieces anew."""
    if c := _glibc():
        c.mallopt(ARENA_MAX, 1)


def _take_huge_pages(c: ctypes.CDLL, size: int) -> None:
    """Grows the heap by `size` bytes and asks for huge pages there; nothing is used of it yet."""
    c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    c.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = c.malloc(size)
    if block:
        begin = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        c.madvise(begin, max(0, block + size - begin), mmap.MADV_HUGEPAGE)
        c.free(block)


def _glibc() -> ctypes.CDLL | None:
    c = ctypes.CDLL(None) if sys.platform == "linux" else None
    return c if hasattr(c, "malloc_trim") else None


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
