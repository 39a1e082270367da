"""Where training computes, and in which precision."""

from __future__ import annotations

import torch

from seesr.machine.device import cpu_prefers_bfloat16


def training_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it is fast, else nothing."""
    fast = device.type == "cuda" or cpu_prefers_bfloat16()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)
