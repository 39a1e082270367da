"""The engine: how networks are loaded, in which precision, and the limits that it keeps."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import PHOTOS, sharing, watching
from PIL import Image
from torch import Tensor, nn

from seesr import OutOfMemoryError, Upscaler
from seesr.components import NetworkSpec
from seesr.engine import Engine
from seesr.errors import TimeLimitError
from seesr.machine.device import CPU, MIN_FLOAT32_MEMORY
from seesr.machine.memory import memory_bytes
from seesr.networks import network_costs, seesr_networks
from seesr.options import Limits


def test_loading_without_memory_ends_with_a_clear_error_and_keeps_nothing() -> None:
    held: list[weakref.ref[Tensor]] = []

    def fail() -> nn.Module:
        loaded = torch.zeros(8)
        held.append(weakref.ref(loaded))
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match=r"while the models of mine were loaded in float32\.") as caught:
        Engine.load("mine", lambda _: [NetworkSpec("ram", fail)], network_costs, "float32", "cpu")
    assert caught.value.__context__ is not None
    assert held[0]() is None, "what was loaded is let go, while the error is still looked at"


def test_models_that_do_not_fit_together_are_read_one_by_one(
    upscaler: Upscaler, small_photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    expected = upscaler.upscale(small_photo, seed=1).image.tobytes()
    tried: list[str] = []

    def networks(dtype: torch.dtype) -> Iterator[NetworkSpec]:
        for spec in seesr_networks(upscaler.weights, dtype):
            tried.append(spec.name)
            if tried == ["ram", "vae", "unet", "controlnet"]:
                raise MemoryError
            yield spec

    engine = Engine.load("mine", networks, network_costs, "float32", "cpu")
    assert engine.components.sequential
    assert "memory does not suffice for all models of mine at once: each is read when it runs" in caplog.text
    assert Upscaler(engine, upscaler.weights).upscale(small_photo, seed=1).image.tobytes() == expected


def test_time_counts_from_before_a_picture_is_decoded(upscaler: Upscaler, small_photo: Image.Image) -> None:
    now = [0.0]

    def enter(stage: str) -> None:
        now[0] += 61 if stage == "read" else 0

    slow = sharing(upscaler, clock=lambda: now[0], limits=Limits(seconds=60), stages=watching(enter))
    with pytest.raises(TimeLimitError, match="longer than 60 seconds"):
        slow.upscale(small_photo, scale=1)


LIMITED = """
import json, sys
import psutil
from PIL import Image
from seesr import Upscaler

upscaler = Upscaler.load("tiny", "cpu", "float32")
# PyTorch's CUDA build takes hundreds of megabytes more than that for CPUs, before anything is computed.
upscaler.engine.memory_limit = psutil.Process().memory_info().rss + 425_000_000
result = upscaler.upscale(Image.open(sys.argv[1]).resize((256, 256)), steps=1)
print(json.dumps([result.rung, result.peak_memory, upscaler.engine.memory_limit]))
"""


def test_a_memory_limit_is_kept() -> None:
    command = [sys.executable, "-c", LIMITED, str(PHOTOS / "astronaut.png")]
    rung, peak, limit = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert rung != "whole"
    assert peak <= limit


@pytest.mark.parametrize(
    ("given", "memory"),
    [
        ({}, memory_bytes(CPU)[1]),
        ({"memory_limit": 2**20}, 2**20),
        ({"memory_limit": 2**60}, memory_bytes(CPU)[1]),
        ({"sequential": True, "memory_limit": 2**60}, 0),
    ],
    ids=["all there is", "a limit", "a limit beyond it", "sequential"],
)
def test_the_precision_is_chosen_by_the_memory_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], memory: float
) -> None:
    class StopError(Exception):
        pass

    def networks(dtype: torch.dtype) -> list[NetworkSpec]:
        raise StopError(dtype)

    # A processor that computes in bfloat16 only where memory is short.
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Intel Xeon"})
    for wanted in (None, "float32"):
        with pytest.raises(StopError) as caught:
            Engine.load("mine", networks, network_costs, wanted, "cpu", **given)
        is_short = wanted is None and memory < MIN_FLOAT32_MEMORY
        assert caught.value.args == (torch.bfloat16 if is_short else torch.float32,)
