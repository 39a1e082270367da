"""The boxes of HEIC, AVIF and JPEG XL files (ISO/IEC 14496-12), without decoding them."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def boxes(content: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(kind, beginning of the body, end) of the boxes from `start` to `stop`, up to one that is cut."""
    stop = len(content) if stop is None else stop
    while start + 8 <= stop:
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        body = start + 8
        if length == 1 and start + 16 <= stop:
            (length,) = struct.unpack(">Q", content[start + 8 : start + 16])
            body += 8
        end = stop if length == 0 else start + length
        if end <= start or end > stop:
            return
        yield kind, body, end
        start = end
