"""Writes TIFF with deflate, by the TIFF 6.0 specification: Pillow would lose EXIF, or the types of its values."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import IO

import numpy as np
from PIL import ExifTags

from seesr.images.metadata.ifd import LONG, SHORT, UNDEFINED, Exif, Field

STRIP_BYTES = 1 << 20
ADOBE_DEFLATE, HORIZONTAL_DIFFERENCES, UNASSOCIATED_ALPHA = 8, 2, 2
BLACK_IS_ZERO, RGB = 1, 2
TIFF_HEADER = b"II*\0\x08\0\0\0"
"""Little endian; the first directory follows."""


def write_tiff(file: IO[bytes], pixels: np.ndarray, exif: Exif | None, icc_profile: bytes | None) -> None:
    """Writes one picture without loss.

    Args:
        file: empty, or at its end, which is at an even place: there the page of a picture is added, to which nothing
            points yet.
        exif: metadata, whose fields are written beside those of the pixels.
        pixels: uint8 or uint16 of shape (H, W) or (H, W, C): grey, grey and alpha, RGB, or RGB and alpha.
    """
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width, channels = pixels.shape
    exif = (exif or Exif()).little_endian()
    rows = max(1, STRIP_BYTES // (width * channels * pixels.itemsize))
    strips = [_compressed(pixels[first : first + rows]) for first in range(0, height, rows)]
    tags = {
        ExifTags.Base.ImageWidth: exif.numbers(LONG, [width]),
        ExifTags.Base.ImageLength: exif.numbers(LONG, [height]),
        ExifTags.Base.BitsPerSample: exif.numbers(SHORT, [8 * pixels.itemsize] * channels),
        ExifTags.Base.Compression: exif.numbers(SHORT, [ADOBE_DEFLATE]),
        ExifTags.Base.PhotometricInterpretation: exif.numbers(SHORT, [RGB if channels > 2 else BLACK_IS_ZERO]),
        ExifTags.Base.StripOffsets: exif.numbers(LONG, [0] * len(strips)),
        ExifTags.Base.SamplesPerPixel: exif.numbers(SHORT, [channels]),
        ExifTags.Base.RowsPerStrip: exif.numbers(LONG, [rows]),
        ExifTags.Base.StripByteCounts: exif.numbers(LONG, [len(strip) for strip in strips]),
        ExifTags.Base.PlanarConfiguration: exif.numbers(SHORT, [1]),
        ExifTags.Base.Predictor: exif.numbers(SHORT, [HORIZONTAL_DIFFERENCES]),
    }
    if channels in (2, 4):
        tags[ExifTags.Base.ExtraSamples] = exif.numbers(SHORT, [UNASSOCIATED_ALPHA])
    if icc_profile:
        tags[ExifTags.Base.InterColorProfile] = Field(UNDEFINED, icc_profile)
    whole, header = replace(exif, base=exif.base | tags), b"" if file.tell() else TIFF_HEADER
    start = file.tell() + len(header)
    ends = np.cumsum([start + len(whole.directories(start)), *map(len, strips)]).tolist()
    whole.base[ExifTags.Base.StripOffsets] = exif.numbers(LONG, ends[:-1])
    file.write(header + whole.directories(start))
    for strip in strips:
        file.write(strip)


def _compressed(rows: np.ndarray) -> bytes:
    """Deflate of each sample's difference from its left neighbour."""
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(differences.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())
