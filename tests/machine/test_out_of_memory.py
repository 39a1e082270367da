"""Which errors mean that memory ran out."""

from __future__ import annotations

import pytest
import torch

from seesr import OutOfMemoryError
from seesr.machine.device import choose_device
from seesr.machine.out_of_memory import is_out_of_memory


def test_what_counts_as_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    for text in (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Invalid buffer size: 16.00 GiB",
    ):
        assert is_out_of_memory(RuntimeError(text))
    for free in (4, 6):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 10))
        text = "GET was unable to find an engine to execute this computation"
        assert is_out_of_memory(RuntimeError(text)) == (free == 4)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_a_device_without_memory_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(OutOfMemoryError, match="device 'cuda' has no memory left"):
        choose_device("cuda")
