"""Regional compilation: each kind of block once, not whole networks, whose compilation takes minutes and more memory."""

from __future__ import annotations

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

BLOCKS = (BasicTransformerBlock, ResnetBlock2D)
MOST_KINDS = 256
"""Kinds of a block, by widths and sizes of maps, that PyTorch keeps compiled; it gives up at 8 otherwise."""


def compile_blocks(network: nn.Module) -> None:
    """Lets every residual and transformer block of `network` be compiled when it first runs, for the sizes it then sees.

    Sizes are fixed: diffusion tiles of one picture have one size, and so have those of the next.
    """
    torch._dynamo.config.recompile_limit = MOST_KINDS
    torch._dynamo.config.accumulated_recompile_limit = MOST_KINDS * len(BLOCKS)
    for block in network.modules():
        if isinstance(block, BLOCKS):
            block.compile(dynamic=False)
