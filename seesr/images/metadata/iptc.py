"""IPTC IIM 4.2: checked, and taken from and put into what JPEG, TIFF and PNG store it in."""

from __future__ import annotations

import re
import struct

IPTC_RESOURCE = 0x0404
"""The number of Photoshop's image resource that holds IPTC."""
PHOTOSHOP_PREFIX = b"Photoshop 3.0\0"
"""What stands before Photoshop's image resources in a JPEG segment."""
APPLICATION, PREVIEW = 2, range(200, 203)
"""The record that describes the picture, and the datasets in it that hold a preview."""
DROPPED_RECORDS = (3, 7, 8, 9)
"""Size and coding of the picture (NewsPhoto), and a picture as data."""
RAW_PROFILE = re.compile(r"\s*([^\n]+)\n\s*(\d+)\n([0-9a-fA-F\s]*)")
"""ImageMagick's text for metadata in PNG, in lines: a name, the count of the bytes, the bytes in hexadecimal."""


def checked(content: bytes) -> bytes:
    """The datasets at the start of `content`, without those of a picture's size and preview, and without padding.

    Raises:
        ValueError: they are damaged, or there are none.
    """
    place, datasets = 0, []
    while content[place : place + 1] == b"\x1c":
        start = place
        if place + 5 > len(content):
            raise ValueError("it is cut short")
        (length,) = struct.unpack_from(">H", content, place + 3)
        place += 5
        if length & 0x8000:  # an extended dataset: the rest is the count of the bytes that hold the length
            size = length & 0x7FFF
            length = int.from_bytes(content[place : place + size])
            place += size
        place += length
        if place > len(content):
            raise ValueError("it is cut short")
        record, number = content[start + 1 : start + 3]
        if record not in DROPPED_RECORDS and not (record == APPLICATION and number in PREVIEW):
            datasets.append(content[start:place])
    if not place or content[place:].strip(b"\0"):
        raise ValueError("it does not consist of datasets")
    return b"".join(datasets)


def from_resources(content: bytes) -> bytes | None:
    """IPTC in Photoshop's image resources; None where there is none."""
    place = 0
    while content[place : place + 4] == b"8BIM" and place + 7 < len(content):
        (number,) = struct.unpack_from(">H", content, place + 4)
        place += 6 + (content[place + 6] + 2) // 2 * 2  # a name with its length, padded to an even count
        length = int.from_bytes(content[place : place + 4])
        if number == IPTC_RESOURCE:
            return content[place + 4 : place + 4 + length]
        place += 4 + (length + 1) // 2 * 2
    return None


def to_resources(iptc: bytes) -> bytes:
    """Photoshop's image resources with nothing but IPTC."""
    return b"8BIM" + struct.pack(">HHL", IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def from_raw_profile(text: str) -> bytes:
    """The bytes in ImageMagick's text for PNG.

    Raises:
        ValueError: it is none.
    """
    match = RAW_PROFILE.fullmatch(text)
    content = bytes.fromhex(match[3]) if match else b""
    if match is None or len(content) != int(match[2]):
        raise ValueError("it is no hexadecimal profile of the length that it states")
    return content


def to_raw_profile(name: str, content: bytes) -> str:
    """ImageMagick's text for PNG."""
    digits = content.hex()
    lines = [digits[first : first + 72] for first in range(0, len(digits), 72)]
    return "\n".join(["", name, f"{len(content):8}", *lines, ""])
