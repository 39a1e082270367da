"""The header of a safetensors file: shapes and metadata, read without the tensors.

The format (huggingface/safetensors): the header's length in 8 bytes, little-endian, the header as JSON, the tensors.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seesr.errors import WeightsError

MAX_HEADER_BYTES = 16 << 20
"""Of thousands of tensors and all tags of a training set; more would only fill the memory."""
LENGTH_BYTES = 8


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself; all of it may be a stranger's words."""

    shapes: dict[str, tuple[int, ...]]
    """Of each tensor."""
    metadata: dict[str, str]
    size: int
    """Bytes up to the first tensor."""


def read_header(path: Path) -> Header:
    """The header of `path`.

    Raises:
        WeightsError: the file cannot be read, is not a safetensors file, is cut short, or has too large a header.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if length > MAX_HEADER_BYTES:
                most = f"at most {MAX_HEADER_BYTES >> 20} MB are read"
                raise WeightsError(f"{path} says that its header has {length / 1e6:,.0f} MB, and {most}; it is refused.")
            text = file.read(length)
            size = file.seek(0, 2)
        entries = json.loads(text)
        metadata = entries.pop("__metadata__", {})
        shapes = {name: _shape(entry) for name, entry in entries.items()}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        metadata = {key: value for key, value in metadata.items() if isinstance(value, str)}
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    # What JSON holds may be anything, at any depth.
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
        raise WeightsError(f"{path} is not a safetensors file, or is cut short; get it again.") from None
    if LENGTH_BYTES + length + end != size:
        raise WeightsError(f"{path} has {size:,} bytes instead of {LENGTH_BYTES + length + end:,}; get it again.")
    return Header(shapes, metadata, LENGTH_BYTES + length)


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    shape = tuple(int(side) for side in entry["shape"])
    if math.prod(shape) < 0:
        raise ValueError("a shape has a negative side")
    return shape
