"""The C library's allocator (glibc's): when freed memory goes back to the system, and when it stays for what comes next.

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
"""glibc's `M_TRIM_THRESHOLD` and so on of mallopt(3)."""
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
"""What they are in a process that frees large pieces: the two thresholds grow to that by themselves."""


def trim() -> None:
    """Gives host memory that nothing refers to any more back to the system.

    glibc keeps freed memory for what comes next, in pieces that the next picture may not fit into: a server would grow.
    """
    gc.collect()
    if c := _glibc():
        c.malloc_trim(0)


@contextmanager
def retain_heap(expected: float) -> Iterator[None]:
    """The host memory that layers free stays with the process while this lasts, then goes back to the system.

    Otherwise glibc maps each large map anew, and the system clears it page by page: on a CPU with AMX that takes as long as
    the convolution that fills it. The first `expected` bytes come in huge pages where the system has them. What is kept may
    not fit what comes next: the peak grows by about a tenth. Works on threads
    that share the main arena (`single_malloc_arena`).
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


def single_malloc_arena() -> None:
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
