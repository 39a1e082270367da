"""The chunks of a PNG, without decoding it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(content: bytes) -> Iterator[bytes]:
    """Each chunk with its length, kind and checksum; the last one is shorter than its length says where the file is cut."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        yield content[place : place + 12 + length]
        place += 12 + length


def is_cut(chunk: bytes) -> bool:
    """Whether a chunk is shorter than its length says."""
    return len(chunk) < 12 + struct.unpack(">I", chunk[:4])[0]
