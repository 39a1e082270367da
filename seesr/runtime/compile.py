"""Regional compilation: each kind of block once, not whole networks, whose compilation takes minutes and more memory."""

from __future__ import annotations

import os
import shutil
import sys

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from seesr.errors import OptionError

BLOCKS = (BasicTransformerBlock, ResnetBlock2D)
MOST_KINDS = 256
"""Kinds of a block, by widths and sizes of maps, that PyTorch keeps compiled; it gives up at 8 otherwise."""


def require_compiler() -> None:
    """Raises OptionError where PyTorch would find no C++ compiler."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if shutil.which(compiler) is None:
        raise OptionError(
            f"compiling needs a C++ compiler, and {compiler} is not here; install it, name one in CXX, or do not compile."
        )


def compile_blocks(network: nn.Module) -> None:
    """Lets every residual and transformer block of `network` be compiled when it first runs, for the sizes it then sees.

    The diffusion's tiles then have one size in all pictures that are larger than a tile (`Tiles.fixed`). Each smaller size
    is compiled for itself, and so is the whole VAE for each picture; the tiled VAE goes layer by layer, uncompiled.
    """
    torch._dynamo.config.recompile_limit = MOST_KINDS
    torch._dynamo.config.accumulated_recompile_limit = MOST_KINDS * len(BLOCKS)
    for block in network.modules():
        if isinstance(block, BLOCKS):
            block.compile(dynamic=False)
