"""How much memory there is, and how much was used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seesr.machine.device import CPU
from seesr.machine.memory import PeakMemory, memory_bytes


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    statistics = "anon 5\ninactive_file 150000\nactive_file 50000\n"
    for name, text in (("max", "1000000"), ("current", "700000"), ("stat", statistics)):
        (tmp_path / name).write_text(text)
    group = (*(str(tmp_path / name) for name in ("max", "current", "stat")), "")
    assert memory_bytes(CPU, [group]) == (500_000, 1_000_000)
    (tmp_path / "max").write_text("max")
    assert memory_bytes(CPU, [group])[1] > 1_000_000


def test_peak_memory_sees_what_was_freed() -> None:
    peak = PeakMemory(CPU)
    if not peak.resets:
        pytest.skip("the system does not let a process reset its mark")
    before = peak.bytes()
    torch.ones(50_000_000)
    assert peak.bytes() >= before + 150_000_000
