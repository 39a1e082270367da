"""PNG (third edition, W3C): the chunks of a file, and pixels of 16 bits, which Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""By the number of channels."""
NO_FILTER, SUB, UP, PAETH = 0, 1, 2, 4
STRIP_ROWS = 256
"""Rows that are compressed into one chunk."""


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


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_16_bit_pixels(file: bytes, samples: np.ndarray) -> Iterator[bytes]:
    """The parts of a PNG that has all of `file`'s chunks but other pixels: uint16 of shape (H, W, C)."""
    height, width, channels = samples.shape
    yield PNG_SIGNATURE
    is_written = False
    for part in chunks(file):
        kind = part[4:8]
        if kind == b"IHDR":
            yield chunk(kind, struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0))
        elif kind != b"IDAT":
            yield part
        elif not is_written:
            is_written = True
            yield from _pixel_chunks(samples)


def _pixel_chunks(samples: np.ndarray) -> Iterator[bytes]:
    height, width, channels = samples.shape
    pixel_bytes = 2 * channels
    above = np.zeros((1, width * pixel_bytes), np.uint8)
    compress = zlib.compressobj()
    for first in range(0, height, STRIP_ROWS):
        rows = samples[first : first + STRIP_ROWS].astype(">u2").view(np.uint8).reshape(-1, width * pixel_bytes)
        content = compress.compress(_filtered(rows, np.concatenate([above, rows[:-1]]), pixel_bytes).tobytes())
        above = rows[-1:]
        if first + STRIP_ROWS >= height:
            content += compress.flush()
        yield chunk(b"IDAT", content)


def _filtered(rows: np.ndarray, above: np.ndarray, pixel_bytes: int) -> np.ndarray:
    """Each row by the filter whose bytes are smallest in sum (PNG, 12.7), with the number of the filter before it."""
    left, corner = (np.pad(values, ((0, 0), (pixel_bytes, 0)))[:, :-pixel_bytes] for values in (rows, above))
    filters = {NO_FILTER: rows, SUB: rows - left, UP: rows - above, PAETH: rows - _paeth(left, above, corner)}
    sums = [np.abs(values.view(np.int8).astype(np.int32)).sum(axis=1) for values in filters.values()]
    best, numbers = np.argmin(sums, axis=0), np.array([*filters], np.uint8)
    chosen = np.stack([*filters.values()])[best, np.arange(len(rows))]
    return np.concatenate([numbers[best][:, None], chosen], axis=1)


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    a, b, c = (values.astype(np.int16) for values in (left, above, corner))
    from_left, from_above, from_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    nearest_above = np.where(from_above <= from_corner, above, corner)
    return np.where((from_left <= from_above) & (from_left <= from_corner), left, nearest_above)
