"""Freed memory that is kept for the next feature map."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

MAPS = """
import resource, sys, threading
import torch
from seesr.machine.device import CPU
from seesr.machine.allocator import retain_heap, single_malloc_arena
from seesr.machine.memory import used_bytes

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def run():
    made = [faults()]
    held = used_bytes(CPU)
    with retain_heap(256 << 20):
        made.append(used_bytes(CPU) - held)
        faults()
        made.append(faults())
    print(*made, faults())

if sys.argv[1] == "thread":
    single_malloc_arena()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
else:
    run()
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc only")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_large_maps_are_not_mapped_anew_while_freed_memory_is_kept(where: str) -> None:
    """Counted in pages that the system had to hand out and clear, before, in between and after."""
    found = subprocess.run([sys.executable, "-c", MAPS, where], capture_output=True, text=True, check=True)
    before, taken, kept, after = map(int, found.stdout.split())
    assert taken < 16 << 20, "what is expected is not taken in advance"
    # Pages may be as large as 2 MiB where the system makes them so by itself.
    assert min(before, after) >= 8 * 32
    assert kept < before / 8
