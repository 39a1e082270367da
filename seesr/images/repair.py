"""Files that other programs show though something of them is wrong.

A JPEG without its end, a PNG with a damaged text, a JPEG with damaged metadata at which Pillow gives up.
"""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from seesr.images.png import PNG_SIGNATURE, chunks, is_cut

JPEG_START, JPEG_END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
PIXEL_APPLICATIONS = (0xE0, 0xE2, 0xEE)
"""Markers of JFIF, of the colour profile, and of Adobe's, which says what the channels are."""
APPLICATIONS, COMMENT = range(0xE0, 0xF0), 0xFE
FILLINGS = (b"\x55" * 64, b"\xaa" * 64, b"\x00" * 64)
"""Made-up picture data: where none is missing, none of them changes a pixel."""


def without_damage(content: bytes) -> tuple[bytes, str] | None:
    """A PNG or JPEG that Pillow gives up on, without what it may lack, and a note on that; None where that is nothing."""
    if content.startswith(PNG_SIGNATURE) and (repaired := _without_damaged_texts(content)):
        return repaired, "damaged texts in the input were left out"
    if content.startswith(JPEG_START) and (repaired := _without_jpeg_metadata(content)):
        return repaired, "damaged metadata in the input was left out"
    return None


def with_jpeg_end(content: bytes) -> bytes | None:
    """A JPEG that lacks only its end marker, with it; None where pixels are missing too, and of any other file."""
    if not content.startswith(JPEG_START) or content.endswith(JPEG_END):
        return None
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


def _without_damaged_texts(content: bytes) -> bytes | None:
    """A PNG without chunks that may be missing and whose checksum is wrong; None where there are none, or it is cut."""
    kept, is_changed = [PNG_SIGNATURE], False
    for chunk in chunks(content):
        if is_cut(chunk):
            return None
        is_ancillary = bool(chunk[4] & 0x20)
        if is_ancillary and zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
            is_changed = True
        else:
            kept.append(chunk)
    return b"".join(kept) if is_changed else None


def _without_jpeg_metadata(content: bytes) -> bytes | None:
    """A JPEG without comments and the segments of applications, but those that its pixels need; None where it has none."""
    kept, place = [JPEG_START], len(JPEG_START)
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != SCAN:
        marker, (length,) = content[place + 1], struct.unpack(">H", content[place + 2 : place + 4])
        is_metadata = marker == COMMENT or (marker in APPLICATIONS and marker not in PIXEL_APPLICATIONS)
        if not is_metadata:
            kept.append(content[place : place + 2 + length])
        place += 2 + length
    repaired = b"".join([*kept, content[place:]])
    return repaired if len(repaired) < len(content) else None
