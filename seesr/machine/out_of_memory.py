"""What an out-of-memory error looks like, how it is told, and how to let go of what it holds."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from seesr.errors import OutOfMemoryError

ALLOCATOR_WORDS = (
    *("can't allocate memory", "not enough memory", "cannot allocate memory", "backend out of memory"),
    *("cuda error: out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "invalid buffer size"),
)
"""How the allocators of the host, MPS, CUDA and its libraries say it, in small letters."""
CUDNN_WORDS = ("unable to find an engine to execute this computation", "unable to find a valid cudnn algorithm")
"""What PyTorch says where each way to compute a convolution ran out of memory; or where there is none."""


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
def oom_as(sentence: str) -> Iterator[None]:
    """Raises OutOfMemoryError with this sentence where memory runs out; any other error goes on as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        clear_tracebacks(error)
        raise OutOfMemoryError(sentence) from None


def clear_tracebacks(error: BaseException) -> None:
    """Lets go of all that an error's traceback holds, of which the tensors of what failed are the most."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None
