"""What the machine itself gives: its processor, its matrix products, and the time in which a process starts."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
import time

import torch

MATMUL_SIDE = 2048
STARTUP = """
import time
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.models import Transformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
began = time.perf_counter()
from seesr import Upscaler
Upscaler.load("tiny", device="cpu")
print(time.perf_counter() - began)
"""
"""What a process pays beyond the libraries it cannot do without: our own imports, and loading the embedded model."""


@functools.cache
def startup_seconds(runs: int = 3) -> float:
    """Of a process of its own, the fastest of `runs`."""
    command = [sys.executable, "-c", STARTUP]
    return min(float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) for _ in range(runs))


def processor(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.cpu.get_capabilities().get("cpu_name", platform.processor()) if device.type == "cpu" else device.type


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the best of some square matrix products, large ones and such as fit into caches."""
    side, best = MATMUL_SIDE if device.type == "cpu" else 4 * MATMUL_SIDE, 0.0
    for size in (side, side // 2, side // 4):
        matrix = torch.randn(size, size, device=device).to(dtype)
        for _ in range(8):
            began = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
