"""Out-of-memory errors: how to recognise them, how to report them, and how to free what they hold."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from seesr.errors import OutOfMemoryError

ALLOCATOR_MESSAGES = (
    *("can't allocate memory", "not enough memory", "cannot allocate memory", "backend out of memory"),
    *("cuda error: out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "invalid buffer size"),
)
"""Parts of the messages of the allocators of the host, MPS, CUDA and its libraries, in lower case."""
CUDNN_MESSAGES = ("unable to find an engine to execute this computation", "unable to find a valid cudnn algorithm")
"""PyTorch's messages when every convolution algorithm ran out of memory, or when no algorithm supports the convolution."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory of a device or the machine ran out: the only reason for a fallback."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    if any(message in text for message in ALLOCATOR_MESSAGES):
        return True
    return any(message in text for message in CUDNN_MESSAGES) and _is_gpu_memory_low()


def _is_gpu_memory_low() -> bool:
    """Whether less than half of the GPU's memory is free."""
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (1, 1)
    return free < total / 2


@contextmanager
def oom_as(message: str) -> Iterator[None]:
    """Raises OutOfMemoryError with `message` if memory runs out in the block; other errors are raised unchanged."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        clear_tracebacks(error)
        raise OutOfMemoryError(message) from None


def clear_tracebacks(error: BaseException) -> None:
    """Drops the traceback of `error` and the local variables in its frames, which hold the tensors of the failed job."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None
