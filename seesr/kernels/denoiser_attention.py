"""Selects the attention kernel of the denoiser: xformers on CUDA where it is installed, otherwise PyTorch's.

xformers itself was never run with it: there was no GPU with xformers to develop on.
"""

from __future__ import annotations

import importlib.util
import logging

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, XFormersAttnProcessor
from torch import nn

from seesr.machine.out_of_memory import is_out_of_memory

logger = logging.getLogger("seesr")


def set_attention_processor(network: nn.Module, device: torch.device) -> None:
    """Gives every attention layer of `network` the kernel of xformers where it runs on `device`, else PyTorch's.

    Raises:
        torch.OutOfMemoryError: memory ran out while xformers was tried.
    """
    # Float32 is checked too, because the NaN guard runs a network again in it whose output is not finite.
    dtypes = {next(network.parameters()).dtype, torch.float32}
    use_xformers = device.type == "cuda" and all(xformers_runs(device, dtype) for dtype in dtypes)
    processor = XFormersAttnProcessor() if use_xformers else AttnProcessor2_0()
    for module in network.modules():
        if isinstance(module, Attention):
            module.set_processor(processor)


def xformers_runs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether xformers is installed and runs on `device` in `dtype`; logs a warning if it is installed but does not run."""
    if importlib.util.find_spec("xformers") is None:
        return False
    try:
        from xformers.ops import memory_efficient_attention

        probe = torch.zeros(1, 2, 1, 64, device=device, dtype=dtype)
        memory_efficient_attention(probe, probe, probe)
    except (ImportError, OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        logger.warning("xformers is installed but does not run here; PyTorch's attention is used (%s)", error)
        return False
    return True
