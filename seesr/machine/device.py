"""Choice of the device and the dtype, and moving networks and tensors to them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seesr.errors import OptionError, OutOfMemoryError
from seesr.machine.out_of_memory import is_out_of_memory
from seesr.options import DTYPE_NAMES

CPU = torch.device("cpu")
DTYPES = {name: getattr(torch, name) for name in DTYPE_NAMES}
MIN_FLOAT32_MEMORY = 16 * 2**30
"""Bytes of memory (or of the memory limit) from which `auto` may use float32 on a CPU: in it the full model needs 11 GB from
128x128 to 512x512, of which its weights are 9."""


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` is CUDA if available, else Apple's MPS, else the CPU.

    Raises:
        OptionError: the device is not available.
        OutOfMemoryError: the device has no memory left.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"device {name!r} has no memory left; stop other programs on it, or use cpu.") from error
        raise OptionError(f"device {name!r} is not available here; use auto, cpu, or one listed by `seesr info`.") from None
    return CPU if device.type == "cpu" else device


def choose_dtype(name: str, device: torch.device, preferred: str | None = None, memory: float = math.inf) -> torch.dtype:
    """The dtype of this name; `auto` is the dtype that the weights prefer (`preferred`; never float16 on a CPU), else the
    fastest on the device, which on CUDA is half precision.

    A CPU with native bfloat16 that is faster in float32 uses bfloat16 all the same if `memory`, the bytes that may be used,
    is less than `MIN_FLOAT32_MEMORY`.

    Raises:
        OptionError: the name is unknown, or it is float16 on a CPU, which has no fast kernels for it.
    """
    if name != "auto":
        if name not in DTYPES:
            raise OptionError(f"dtype is {name!r}; use auto, {', '.join(DTYPES)}.")
        if supported_dtype(device, DTYPES[name]) != DTYPES[name]:
            raise OptionError(f"dtype {name} is for GPUs; on a CPU use float32, bfloat16 or auto.")
        return DTYPES[name]
    if preferred is not None and supported_dtype(device, DTYPES[preferred]) == DTYPES[preferred]:
        return DTYPES[preferred]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type != "cpu" or not cpu_has_bfloat16():
        return torch.float32
    return torch.bfloat16 if cpu_prefers_bfloat16() or memory < MIN_FLOAT32_MEMORY else torch.float32


def supported_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which networks of `dtype` run on `device`: float32 for float16 on a CPU, which has no kernels for it."""
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 else dtype


def dtype_name(dtype: torch.dtype) -> str:
    """The name that options use, such as `float32`."""
    return str(dtype).removeprefix("torch.")


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has AMX or AVX512-BF16; without them bfloat16 is many times slower than float32."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def cpu_prefers_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32: CPUs with AMX, and AMD's (not Intel's) with only AVX512-BF16.

    It is not measured at run time: the choice must be the same in every run, or a seed would not reproduce a picture.
    """
    intel = "intel" in torch.cpu.get_capabilities().get("cpu_name", "").lower()
    return torch.cpu._is_amx_tile_supported() or (cpu_has_bfloat16() and not intel)


def to_device(model: nn.Module, device: torch.device, memory_format: torch.memory_format = torch.channels_last) -> None:
    """Moves `model` to `device` in `memory_format`; channels last is fastest, except for the VAE on CUDA."""
    model.to(device=device, memory_format=memory_format).eval()  # pyright: ignore[reportCallIssue] # PyTorch's types lack it


def dtype_of(network: nn.Module) -> torch.dtype:
    """The dtype of the weights of `network`."""
    return next(network.parameters()).dtype


def to_device_of(tensor: Tensor, network: nn.Module) -> Tensor:
    """`tensor` on the device and in the dtype of `network`."""
    weight = next(network.parameters())
    return tensor.to(weight.device, weight.dtype)
