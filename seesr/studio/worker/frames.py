"""Messages between the server and its worker: a JSON header and bytes, over a pipe. Nothing is unpickled.

A frame is the length of its header and of its content, as unsigned integers of 4 and 8 bytes, most significant first, then
both.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

MAX_HEADER, MAX_CONTENT = 16 << 20, 2 << 30
"""Bytes."""
_LENGTHS = struct.Struct(">IQ")


class FrameError(Exception):
    """What came is not a frame."""


def write_frame(file: IO[bytes], header: Mapping[str, Any], content: bytes = b"") -> None:
    """Writes a frame and sends it off.

    Raises:
        FrameError: it is too long; nothing was written.
        OSError: nobody reads.
    """
    encoded = json.dumps(header).encode()
    if len(encoded) > MAX_HEADER or len(content) > MAX_CONTENT:
        raise FrameError(f"a message of {len(encoded):,} and {len(content):,} bytes is too long")
    file.write(_LENGTHS.pack(len(encoded), len(content)) + encoded)
    file.write(content)
    file.flush()


def read_frame(file: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next frame; None where the other side has ended, also in the middle of one.

    Raises:
        FrameError: it is not one, or is too long.
    """
    lengths = file.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header_length, length = _LENGTHS.unpack(lengths)
    if header_length > MAX_HEADER or length > MAX_CONTENT:
        raise FrameError(f"a message of {header_length:,} and {length:,} bytes is too long")
    encoded, content = file.read(header_length), file.read(length)
    if len(encoded) < header_length or len(content) < length:
        return None
    try:
        header = json.loads(encoded)
    except ValueError as error:
        raise FrameError("a message's header is not JSON") from error
    if not isinstance(header, dict):
        raise FrameError("a message's header is not an object")
    return header, content
