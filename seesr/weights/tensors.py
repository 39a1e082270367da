"""Reads the tensors of weight files, and refuses files that hold anything else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from seesr.errors import WeightsError
from seesr.machine.device import CPU
from seesr.machine.memory import memory_bytes

StateDict = dict[str, Tensor]
TENSORS_PER_READ = 64
MIN_FREE_BYTES = 128 << 20
"""Memory of the machine that must stay free: where none is left, the system kills the process without a message."""


def read_safetensors(path: Path, dtype: torch.dtype | None = None, containing: str = "") -> StateDict:
    """Tensors of a safetensors file whose names contain `containing`, mapped into memory.

    Floating-point tensors of another dtype than `dtype` are converted, a few at a time, so that little of the file is
    in memory beside the copies.

    Raises:
        WeightsError: the file is missing, unreadable or damaged.
        MemoryError: the copies do not fit into memory.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
        keys, tensors = sorted(key for key in names if containing in key), StateDict()
        for first in range(0, len(keys), TENSORS_PER_READ):
            tensors |= _read_tensors(path, keys[first : first + TENSORS_PER_READ], dtype)
        return tensors
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a complete safetensors file ({error}); delete it and get it again.") from error


def _read_tensors(path: Path, keys: list[str], dtype: torch.dtype | None) -> StateDict:
    # Opened for each group of tensors: when it is closed, the pages of tensors that were converted are released.
    with safe_open(path, framework="pt") as file:
        mapped = {key: file.get_tensor(key) for key in keys}
        if dtype is None:
            return mapped
        converted = [key for key, tensor in mapped.items() if tensor.is_floating_point() and tensor.dtype != dtype]
        # Free memory is read once for the group: it takes a tenth of a millisecond, and there are hundreds of tensors.
        if (
            converted
            and memory_bytes(CPU)[0] < sum(mapped[key].numel() for key in converted) * dtype.itemsize + MIN_FREE_BYTES
        ):
            raise MemoryError("weights do not fit into the free memory")
        return mapped | {key: mapped[key].to(dtype) for key in converted}


def read_legacy(path: Path) -> StateDict:
    """Tensors of a PyTorch file, read without running any code in it; a state dict under the key `model` is unwrapped.

    Raises:
        WeightsError: the file is missing, unreadable or damaged, or holds more than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    # In a damaged file its unpickler or zip reader may raise any of these.
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise WeightsError(f"{path} is not a readable PyTorch file; delete it and get it again.") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # torch has a class of its own beside pickle's
            raise
        raise WeightsError(f"{path} holds more than tensors and was refused; get it again from its source.") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} does not hold a state dict of tensors.")
    return content
