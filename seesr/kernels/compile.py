"""Regional compilation: blocks are compiled, not whole networks, which would take minutes and more memory.

Measured on a Xeon with AMX: nothing gained (2.3 to 2.6 s compiled, 2.2 to 2.8 not); on a GPU it was not measured.
"""

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

COMPILED_BLOCKS = (BasicTransformerBlock, ResnetBlock2D, InplaceResnet)
RECOMPILE_LIMIT = 256
"""Variants of a block (by width and feature map size) that PyTorch compiles; by default it stops at 8."""


def require_compiler(device: torch.device) -> None:
    """Checks what PyTorch needs to compile for `device`.

    Raises:
        OptionError: the compiler is missing (C++ for a CPU, C for a GPU), or Triton for a GPU, or Python's headers.
    """
    if device.type == "cpu":
        language, variable, defaults = "C++", "CXX", {"darwin": ["clang++"], "win32": ["cl"]}.get(sys.platform, ["g++"])
    else:
        language, variable, defaults = "C", "CC", ["gcc", "clang", "cl"]
    compilers = [os.environ[variable]] if os.environ.get(variable) else defaults
    if not any(map(shutil.which, compilers)):
        raise OptionError(
            f"compiling needs a {language} compiler, and {' or '.join(compilers)} was not found; "
            f"install one, set {variable}, or do not compile."
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise OptionError("compiling for a GPU needs Triton, which is not installed; install triton, or do not compile.")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise OptionError(
            f"compiling needs Python's headers, which are not in {headers}; install them (python3-dev), or do not compile."
        )


def compile_blocks(network: nn.Module) -> None:
    """Sets every residual and transformer block of `network` to compile at its first run, for the shapes of its inputs.

    Diffusion tiles have one size (`Tiles.fixed`) in every picture with sides longer than a tile. A smaller picture or
    another number of tiles in a pass compiles again, and so does the whole VAE, on a GPU, for each picture size. The tiled
    VAE runs layer by layer and is not compiled.
    """
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.accumulated_recompile_limit = RECOMPILE_LIMIT * len(COMPILED_BLOCKS)
    for block in network.modules():
        if isinstance(block, COMPILED_BLOCKS):
            block.compile(dynamic=False)
