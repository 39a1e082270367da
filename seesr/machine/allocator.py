"""The host memory allocator (glibc): when it returns freed memory to the system, and when it keeps it for reuse.

Measured on a CPU with AMX: 512x512 to 2048x2048 took 7.6 s with freed memory kept, 9.4 s without (docs/speed.md).
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
"""glibc's `M_TRIM_THRESHOLD` and so on, see mallopt(3)."""
DEFAULTS = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
"""Their values outside `retain_heap`. In a process that frees large blocks both thresholds grow to these by themselves."""


def trim_heap() -> None:
    """Returns unreferenced host memory to the system.

    glibc keeps freed memory for reuse, in blocks that may not suit the next picture: a server would grow.
    """
    gc.collect()
    if c := _glibc():
        c.malloc_trim(0)


@contextmanager
def retain_heap(expected_bytes: float) -> Iterator[None]:
    """Keeps the host memory that layers free in the process while the block runs, then returns it to the system.

    Otherwise glibc requests new pages for each large feature map, and the system clears every page: on a CPU with AMX that
    takes as long as the convolution that fills the map. The first `expected_bytes` are huge pages where the system has them.
    Kept blocks do not always suit the next layer: the peak grows by about a tenth. It works on threads that share the main
    arena (`single_malloc_arena`).
    """
    c = _glibc()
    if c is None:
        yield
        return
    c.mallopt(MMAP_MAX, 0)
    c.mallopt(TRIM_THRESHOLD, -1)
    _reserve_huge_pages(c, int(expected_bytes))
    try:
        yield
    finally:
        for parameter, value in DEFAULTS.items():
            c.mallopt(parameter, value)
        c.malloc_trim(0)


def single_malloc_arena() -> None:
    """Makes threads started from now on share the main arena: in other arenas glibc requests large blocks anew each time."""
    if c := _glibc():
        c.mallopt(ARENA_MAX, 1)


def _reserve_huge_pages(c: ctypes.CDLL, size: int) -> None:
    """Grows the heap by `size` bytes and requests huge pages for them; no page is used yet."""
    c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    c.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = c.malloc(size)
    if block:
        start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        c.madvise(start, max(0, block + size - start), mmap.MADV_HUGEPAGE)
        c.free(block)


def _glibc() -> ctypes.CDLL | None:
    c = ctypes.CDLL(None) if sys.platform == "linux" else None
    return c if hasattr(c, "malloc_trim") else None
