"""Weight files: tensors and nothing but tensors."""

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
TOGETHER = 64
"""Tensors that are read at once."""
SPARE = 128 << 20
"""Bytes of the machine's memory that stay free: where there are none the system ends the process without a word."""


def read_safetensors(path: Path, dtype: torch.dtype | None = None, part: str = "") -> StateDict:
    """Tensors of a safetensors file whose names hold `part`, mapped into memory; or made `dtype`, while little of the file
    is in memory beside them.

    Raises:
        WeightsError: the file is damaged.
        MemoryError: what it takes in `dtype` does not fit into memory.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
        keys, tensors = sorted(key for key in names if part in key), StateDict()
        for first in range(0, len(keys), TOGETHER):
            tensors |= _read_some(path, keys[first : first + TOGETHER], dtype)
        return tensors
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); delete it and get it again.") from error


def _read_some(path: Path, keys: list[str], dtype: torch.dtype | None) -> StateDict:
    # Opened for each part: closing it is what lets go of the pages that were read.
    with safe_open(path, framework="pt") as file:
        mapped = {key: file.get_tensor(key) for key in keys}
        copied = [key for key, tensor in mapped.items() if tensor.is_floating_point() and dtype not in (None, tensor.dtype)]
        # Looked at once for all of them: it takes a tenth of a millisecond, and there are hundreds.
        if copied and memory_bytes(CPU)[0] < sum(mapped[key].numel() for key in copied) * dtype.itemsize + SPARE:
            raise MemoryError("weights do not fit into the memory that is left")
        return mapped | {key: mapped[key].to(dtype) for key in copied}


def read_legacy(path: Path) -> StateDict:
    """Tensors of a PyTorch file, of which nothing is run.

    Raises:
        WeightsError: the file is damaged, or holds more than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    # torch.load raises whichever of these its unpickler or its zip reader meets first in a damaged file.
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise WeightsError(f"{path} is not a readable PyTorch file; delete it and get it again.") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise WeightsError(f"{path} holds more than tensors and was refused; get it again from its source.") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds no state dict of tensors.")
    return content
