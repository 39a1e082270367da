"""Which device and dtype to run on, and what there is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seesr.errors import OptionError, OutOfMemoryError
from seesr.machine.out_of_memory import is_out_of_memory
from seesr.options import DTYPE_NAMES

CPU = torch.device("cpu")
DTYPES = {name: getattr(torch, name) for name in DTYPE_NAMES}
FLOAT32_MEMORY = 16 * 2**30
"""Bytes of the machine, or of the limit given, from which on a CPU takes float32: the full model needs 11 GB in it to make
512x512 of 128x128, its weights 9 of them."""


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one, else Apple's MPS, else the CPU.

    Raises:
        OptionError: the device named is not there.
        OutOfMemoryError: it is, but has no memory left.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"device {name!r} has no memory left; end what else runs there, or use cpu.") from error
        raise OptionError(f"device {name!r} is not available here; use auto, cpu, or one that `seesr info` lists.") from None
    return CPU if device.type == "cpu" else device


def choose_dtype(name: str, device: torch.device, wanted: str | None = None, memory: float = math.inf) -> torch.dtype:
    """`auto` is what the weights want (`wanted`; float16 not on a CPU), else what the device is fastest in, for CUDA
    half precision.

    A CPU that computes bfloat16 well, but float32 faster, takes bfloat16 where `memory`, the bytes that may be used, is less
    than `FLOAT32_MEMORY`.

    Raises:
        OptionError: a name that is none, or float16 on a CPU, which has no kernels worth using for it.
    """
    if name != "auto":
        if name not in DTYPES:
            raise OptionError(f"dtype is {name!r}; use auto, {', '.join(DTYPES)}.")
        if dtype_on(device, DTYPES[name]) != DTYPES[name]:
            raise OptionError(f"dtype {name} is for GPUs; on a CPU use float32, bfloat16 or auto.")
        return DTYPES[name]
    if wanted is not None and dtype_on(device, DTYPES[wanted]) == DTYPES[wanted]:
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type != "cpu" or not cpu_computes_bfloat16():
        return torch.float32
    return torch.bfloat16 if cpu_is_fastest_in_bfloat16() or memory < FLOAT32_MEMORY else torch.float32


def dtype_on(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What networks of `dtype` are computed in on a device: a CPU has no kernels worth using for float16."""
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 else dtype


def dtype_name(dtype: torch.dtype) -> str:
    """As options call it: `float32`."""
    return str(dtype).removeprefix("torch.")


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has AMX or AVX512-BF16; elsewhere bfloat16 is many times slower than float32."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def cpu_is_fastest_in_bfloat16() -> bool:
    """Whether it is faster in bfloat16 than in float32: with AMX; with AVX512-BF16 alone AMD's are, Intel's are not.

    Not a measurement: the same call on the same machine must choose the same, or a seed would not repeat a picture.
    """
    intel = "intel" in torch.cpu.get_capabilities().get("cpu_name", "").lower()
    return torch.cpu._is_amx_tile_supported() or (cpu_computes_bfloat16() and not intel)


def to_device(model: nn.Module, device: torch.device, layout: torch.memory_format = torch.channels_last) -> None:
    """Moves `model` there, its convolutions laid out by `layout`; channels last is fastest, but for the VAE on CUDA."""
    model.to(device=device, memory_format=layout).eval()


def dtype_of(network: nn.Module) -> torch.dtype:
    """The precision of its weights."""
    return next(network.parameters()).dtype


def to_device_of(tensor: Tensor, network: nn.Module) -> Tensor:
    """`tensor` where and in which precision `network` takes it."""
    weight = next(network.parameters())
    return tensor.to(weight.device, weight.dtype)
