"""xformers' attention is used where it runs, and only there."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, XFormersAttnProcessor
from torch import Tensor, nn

from seesr.kernels import denoiser_attention as attention
from seesr.machine.device import CPU


@pytest.fixture
def xformers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package of that name; what it computes is up to the test."""
    package, ops = ModuleType("xformers"), ModuleType("xformers.ops")
    package.__spec__, package.ops, package.__path__ = ModuleSpec("xformers", None), ops, []
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    return package


def test_xformers_is_taken_where_it_runs(xformers: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    xformers.ops.memory_efficient_attention = lambda q, k, v: q
    assert attention.xformers_runs(CPU, torch.float32)

    def refuses(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError("no operator for CPU")

    xformers.ops.memory_efficient_attention = refuses
    assert not attention.xformers_runs(CPU, torch.float32)
    assert "does not run here; PyTorch's attention is used (no operator for CPU)" in caplog.text
    del xformers.ops.memory_efficient_attention
    assert not attention.xformers_runs(CPU, torch.float32)

    def needs_memory(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    xformers.ops.memory_efficient_attention = needs_memory
    with pytest.raises(torch.OutOfMemoryError):
        attention.xformers_runs(CPU, torch.float32)


def test_without_xformers_nothing_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: None)
    assert not attention.xformers_runs(CPU, torch.float32)
    assert not caplog.text


def test_attention_changes_with_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rung that goes to the CPU must not be left with a kernel that only a GPU has."""
    layer = Attention(query_dim=8, heads=2, dim_head=4)
    network, image, runs = nn.Sequential(layer), torch.randn(1, 5, 8), [torch.float16, torch.float32]
    plain = layer(image)
    monkeypatch.setattr(attention, "xformers_runs", lambda device, dtype: dtype in runs)
    attention.set_attention_processor(network, torch.device("cuda"))
    assert isinstance(layer.processor, XFormersAttnProcessor)
    attention.set_attention_processor(network, CPU)
    assert isinstance(layer.processor, AttnProcessor2_0)
    assert torch.equal(layer(image), plain)
    runs.remove(torch.float32)
    attention.set_attention_processor(network, torch.device("cuda"))
    assert isinstance(layer.processor, AttnProcessor2_0), "a float16 network is run again in float32 where it overflows"
