"""Files that other programs show though something of them is wrong: a JPEG without its end, a PNG with a damaged text."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

JPEG_END = b"\xff\xd9"
FILLINGS = (b"\x55" * 64, b"\xaa" * 64, b"\x00" * 64)
"""Made-up picture data: where none is missing, none of them changes a pixel."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def with_jpeg_end(content: bytes) -> bytes | None:
    """A JPEG that lacks only its end marker, with it; None where pixels are missing too."""
    body = content.removesuffix(b"\xff")
    pixels = [_pixels(body + filling + JPEG_END) for filling in (b"", *FILLINGS)]
    is_whole = pixels[0] is not None and all(other == pixels[0] for other in pixels)
    return body + JPEG_END if is_whole else None


def _pixels(content: bytes) -> bytes | None:
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            return image.tobytes()
    except (OSError, SyntaxError, ValueError):
        return None


def without_damaged_texts(content: bytes) -> bytes | None:
    """A PNG without chunks that may be missing and whose checksum is wrong; None where there are none, or it is cut."""
    kept, place, is_changed = [PNG_SIGNATURE], len(PNG_SIGNATURE), False
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunk = content[place : place + 12 + length]
        if len(chunk) < 12 + length:
            return None
        is_ancillary = bool(chunk[4] & 0x20)
        if is_ancillary and zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
            is_changed = True
        else:
            kept.append(chunk)
        place += 12 + length
    return b"".join(kept) if is_changed else None
