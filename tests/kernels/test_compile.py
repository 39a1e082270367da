"""Compiled blocks compute what the others do; where they cannot be compiled it is said."""

from __future__ import annotations

import functools
import importlib.util
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from helpers import PHOTOS, Run
from torch import Tensor, nn

from seesr import Upscaler
from seesr.errors import OptionError
from seesr.kernels.compile import compile_blocks, require_compiler
from seesr.kernels.winograd import use_winograd
from seesr.machine.device import CPU
from seesr.planning.ladder import build_ladder
from seesr.planning.plan import Budget, TileSettings


def can_compile() -> bool:
    try:
        require_compiler(CPU)
    except OptionError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not can_compile(), reason="PyTorch compiles with a C++ compiler and Python's headers")


@pytest.mark.compile
@needs_compiler
def test_compiled_blocks_compute_the_same_and_share_their_code() -> None:
    torch.manual_seed(0)
    blocks = [ResnetBlock2D(in_channels=8, out_channels=8, temb_channels=None, groups=4).eval() for _ in range(4)]
    image = torch.randn(1, 8, 12, 12)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return functools.reduce(lambda hidden, block: block(hidden, None), blocks, image)

    plain = run()
    compile_blocks(nn.ModuleList(blocks))
    torch._dynamo.utils.counters.clear()
    torch.testing.assert_close(run(), plain, rtol=1e-4, atol=1e-5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 1 <= graphs <= 2, "of four blocks; another layout of the first one's input makes a second"
    torch.testing.assert_close(run(), plain, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@pytest.mark.compile
@needs_compiler
def test_a_compiled_block_computes_the_same_by_winograd() -> None:
    torch.manual_seed(0)
    block = ResnetBlock2D(in_channels=128, out_channels=128, temb_channels=None).eval()
    image = torch.randn(1, 128, 32, 36).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain = block(image, None)
        use_winograd(block)
        compile_blocks(block)
        torch.testing.assert_close(block(image, None), plain, rtol=1e-3, atol=3e-4)


@pytest.mark.compile
@needs_compiler
def test_on_a_cpu_only_the_denoiser_is_compiled() -> None:
    upscaler = Upscaler.load("tiny", device="cpu", compiled=True)

    def compiled(network: nn.Module) -> int:
        return sum(module._compiled_call_impl is not None for module in network.modules())

    assert compiled(upscaler.networks.denoiser) > 10
    assert compiled(upscaler.engine.components["vae"]) == 0, "there it would be several times slower"


def test_without_a_compiler_it_is_said_before_anything_is_loaded(
    seesr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("seesr.networks.load_ram", lambda *_, **__: pytest.fail("it was loaded"))
    outcome = seesr("upscale", PHOTOS / "chelsea.png", "--compile", "--device", "cpu", "-o", tmp_path / "never.png")
    assert outcome.code == 2
    assert "compiling needs a C++ compiler, and no-such-compiler was not found" in outcome.err
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere")
    outcome = seesr("upscale", PHOTOS / "chelsea.png", "--compile", "--device", "cpu", "-o", tmp_path / "never.png")
    assert outcome.code == 2
    assert "compiling needs Python's headers, which are not in /nowhere" in outcome.err
    assert "Traceback" not in outcome.err


def test_without_triton_nothing_is_compiled_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail(name) if name != "triton" else None)
    with pytest.raises(OptionError, match="compiling for a GPU needs Triton, which is not installed"):
        require_compiler(torch.device("cuda"))


def test_what_was_compiled_for_a_gpu_is_not_compiled_again_on_the_cpu(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ladder's last rung must not fail for want of a C++ compiler."""

    class Block(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return rows + 1

    components, gpu, block, compiled = upscaler.engine.components, torch.device("cuda"), Block(), []

    def compile_it(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        compiled.append(graph)
        return graph

    block.compile(backend=compile_it, dynamic=False)
    last = build_ladder(TileSettings(), 64, 64, gpu, upscaler.engine.costs, Budget(1e12, 1e12), compiled=True)[-1]
    assert last.device == CPU
    monkeypatch.setattr(components, "compiled", True)
    for device, graphs in ((gpu, 0), (CPU, 1)):
        monkeypatch.setattr(components, "device", device)
        with components.on(last):
            assert torch.equal(block(torch.ones(2)), torch.full((2,), 2.0))
        assert len(compiled) == graphs


def test_compiled_networks_get_fixed_tiles(upscaler: Upscaler) -> None:
    costs, budget = upscaler.engine.costs, Budget(1e12, 1e12)
    for compiled in (True, False):
        for rung in build_ladder(TileSettings(), 300, 300, torch.device("cuda"), costs, budget, compiled=compiled):
            assert rung.tiles(300, 300).fixed == compiled
