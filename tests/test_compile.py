"""Compiled blocks compute what the others do."""

from __future__ import annotations

import functools
import shutil

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from seesr.runtime.compile import compile_blocks


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with a C++ compiler")
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
