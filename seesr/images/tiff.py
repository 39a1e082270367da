"""Writes TIFF with deflate, by the TIFF 6.0 specification: with Pillow's own compression EXIF would be lost."""

from __future__ import annotations

import zlib
from typing import IO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

STRIP_BYTES = 1 << 20
ADOBE_DEFLATE, HORIZONTAL_DIFFERENCES, UNASSOCIATED_ALPHA = 8, 2, 2
BLACK_IS_ZERO, RGB = 1, 2


def write_tiff(file: IO[bytes], pixels: np.ndarray, exif: Image.Exif | None, icc_profile: bytes | None) -> None:
    """Writes one picture without loss.

    Args:
        file: empty, or at its end, which is at an even place: there the page of a picture is added, to which nothing
            points yet.
        pixels: uint8 or uint16 of shape (H, W) or (H, W, C): grey, grey and alpha, RGB, or RGB and alpha.
    """
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width, channels = pixels.shape
    rows = max(1, STRIP_BYTES // (width * channels * pixels.itemsize))
    strips = [_compressed(pixels[first : first + rows]) for first in range(0, height, rows)]
    ifd = ImageFileDirectory_v2()
    if exif:
        for tag in exif:
            ifd[tag] = exif.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else exif[tag]
    if icc_profile:
        ifd.tagtype[TiffImagePlugin.ICCPROFILE] = TiffTags.UNDEFINED
        ifd[TiffImagePlugin.ICCPROFILE] = icc_profile
    ifd[ExifTags.Base.ImageWidth], ifd[ExifTags.Base.ImageLength] = width, height
    ifd[ExifTags.Base.BitsPerSample] = (8 * pixels.itemsize,) * channels
    ifd[ExifTags.Base.SamplesPerPixel] = channels
    ifd[ExifTags.Base.PhotometricInterpretation] = RGB if channels > 2 else BLACK_IS_ZERO
    if channels in (2, 4):
        ifd[ExifTags.Base.ExtraSamples] = UNASSOCIATED_ALPHA
    ifd[ExifTags.Base.PlanarConfiguration] = 1
    ifd[ExifTags.Base.Compression], ifd[ExifTags.Base.Predictor] = ADOBE_DEFLATE, HORIZONTAL_DIFFERENCES
    ifd[ExifTags.Base.RowsPerStrip] = rows
    lengths = [len(strip) for strip in strips]
    for tag, values in (
        (ExifTags.Base.StripByteCounts, lengths),
        (ExifTags.Base.StripOffsets, np.cumsum([0, *lengths[:-1]]).tolist()),  # `save` adds where they begin
    ):
        ifd.tagtype[tag] = TiffTags.LONG
        ifd[tag] = tuple(values)
    ifd.save(file)
    for strip in strips:
        file.write(strip)


def _compressed(rows: np.ndarray) -> bytes:
    """Deflate of each sample's difference from its left neighbour."""
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(differences.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())
