"""Which precision a processor computes in."""

from __future__ import annotations

import pytest
import torch

from seesr.machine.device import CPU, choose_dtype, supported_dtype

GIB = 2**30


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "name", "memory", "chosen"),
    [
        (True, True, "Intel Xeon", 64 * GIB, torch.bfloat16),
        (False, True, "AMD EPYC 9654", 64 * GIB, torch.bfloat16),
        (False, True, "Intel Xeon", 64 * GIB, torch.float32),
        (False, True, "Intel Xeon", 8 * GIB, torch.bfloat16),
        (False, False, "Intel Xeon", 8 * GIB, torch.float32),
    ],
)
def test_a_cpu_computes_in_what_it_is_fastest_in_unless_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, name: str, memory: int, chosen: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name})
    assert choose_dtype("auto", CPU, memory=memory) == chosen
    assert choose_dtype("auto", CPU, "float32", memory) == torch.float32, "what the weights want goes first"
    assert choose_dtype("auto", CPU, "float16", memory) == chosen, "but for what a CPU cannot"
    assert supported_dtype(CPU, torch.float16) == torch.float32, "as a result says that came down to it"
