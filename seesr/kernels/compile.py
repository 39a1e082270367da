"""Regional compilation: each kind of block once, not whole networks, whose compilation takes minutes and more memory."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from seesr.errors import OptionError
from seesr.kernels.inplace import InplaceResnet

BLOCKS = (BasicTransformerBlock, ResnetBlock2D, InplaceResnet)
MOST_KINDS = 256
"""Kinds of a block, by widths and sizes of maps, that PyTorch keeps compiled; it gives up at 8 otherwise."""


def require_compiler(device: torch.device) -> None:
    """Raises OptionError where there is no C++ compiler for PyTorch, or, on a GPU, no Triton or no C compiler for it; or
    where Python's headers are missing."""
    if device.type == "cpu":
        language, variable, usual = "C++", "CXX", {"darwin": ["clang++"], "win32": ["cl"]}.get(sys.platform, ["g++"])
    else:
        language, variable, usual = "C", "CC", ["gcc", "clang", "cl"]
    compilers = [os.environ[variable]] if os.environ.get(variable) else usual
    if not any(map(shutil.which, compilers)):
        raise OptionError(
            f"compiling needs a {language} compiler, and {' or '.join(compilers)} is not here; "
            f"install it, name one in {variable}, or do not compile."
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise OptionError("compiling for a GPU needs Triton, which is not here; install it (triton), or do not compile.")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise OptionError(
            f"compiling needs Python's headers, which are not in {headers}; install them (python3-dev), or do not compile."
        )


def compile_blocks(network: nn.Module) -> None:
    """Lets every residual and transformer block of `network` be compiled when it first runs, for the sizes it then sees.

    The diffusion's tiles then have one size in all pictures with sides longer than a tile's (`Tiles.fixed`). Each smaller
    size is compiled for itself, and so are another number of tiles a pass, and the whole VAE, on a GPU, for each size of
    picture; the tiled VAE goes layer by layer, uncompiled.
    """
    torch._dynamo.config.recompile_limit = MOST_KINDS
    torch._dynamo.config.accumulated_recompile_limit = MOST_KINDS * len(BLOCKS)
    for block in network.modules():
        if isinstance(block, BLOCKS):
            block.compile(dynamic=False)
