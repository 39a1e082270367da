"""Samples of more than 8 bits, and of floating point: read without rounding, and as bytes.

Pillow has no mode for colours of 16 bits, and its decoders keep the high byte of each sample. They keep the low byte when
they are told the other byte order, so that two decodings give the whole sample.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, SAMPLEFORMAT

from seesr.errors import InputError
from seesr.images.colour_tags import heif_bits
from seesr.notes import Notes

STRIP_ROWS = 64
"""Rows that are converted at a time: that is computed in float64, which would take much memory for all."""
LOW_BYTES = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
"""Ends of Pillow's raw modes, which give the high bytes, and the ends that give the low bytes; N is the machine's order."""
HIGH_BYTE_MODES, GREY_ALPHA = ("RGB", "RGBX", "RGBA"), "LA;16B"
VIDEO_FORMATS = ("HEIF", "AVIF")
"""Of which Pillow's plug-ins give 8 bits, whatever the file holds."""

Pixels = Image.Image | np.ndarray
"""An RGB picture of 8 bits, or what is not rounded: `(H, W, 3)`, float32 in 0..1."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What a picture of more than 8 bits holds."""

    values: np.ndarray
    """float32 `(H, W, C)` from 0, black, to 1, white; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""
    bits: int
    """Bits per channel of the picture."""


@dataclass(frozen=True)
class SampleFormat:
    """Properties of a file's samples that Pillow's mode does not tell."""

    bits: int
    """Bits per channel."""
    signed: bool = True
    """Whether samples of 32 bits are signed."""
    white_is_zero: bool = False
    """Whether 0 is white. Pillow inverts such samples itself if they have 8 bits or fewer."""

    @classmethod
    def of(cls, image: Image.Image, content: bytes) -> SampleFormat:
        """The sample format of `image`, whose file is `content`; that is empty where there is none.

        It must not be loaded yet unless it is a TIFF or was created in memory: loading forgets the raw mode.
        """
        tags = getattr(image, "tag_v2", None)
        if tags is not None:
            unsigned = tags.get(SAMPLEFORMAT, (1,))[0] == 1
            return cls(tags.get(BITSPERSAMPLE, (1,))[0], not unsigned, tags.get(PHOTOMETRIC_INTERPRETATION) == 0)
        if image.mode in ("I", "F"):
            return cls(32)
        if image.format in VIDEO_FORMATS:
            return cls(heif_bits(content))
        raw_mode = raw_mode_of(image)
        # BGR;16 has 16 bits for all three channels.
        return cls(16 if image.mode.startswith("I") or (";16" in raw_mode and raw_mode != "BGR;16") else 8)


def raw_mode_of(image: Image.Image) -> str:
    """Pillow's raw mode of a file, such as `L;4`; empty once the image is loaded."""
    tiles = getattr(image, "tile", [])
    raw_mode = tiles[0][3] if tiles else ""
    return str(raw_mode[0] if isinstance(raw_mode, tuple) and raw_mode else raw_mode)


def read_samples(
    image: Image.Image, content: bytes, again: Callable[[], Image.Image], sample_format: SampleFormat, notes: Notes
) -> Samples | None:
    """The samples of a picture of more than 8 bits; None where it has 8, or no decoder gives more.

    Args:
        image: it is loaded here, unless None is returned.
        content: its file; empty if there is none.
        again: opens the file once more.
        sample_format: of `image`.
    """
    if image.mode.startswith(("I", "F")):
        values = _grey(_loaded(image), sample_format, notes)
    elif not content or sample_format.bits <= 8 or not isinstance(image, ImageFile.ImageFile):  # or a copy of a frame
        return None
    elif image.format in VIDEO_FORMATS:
        values = _of_video_frame(_loaded(image), content, sample_format.bits)
    else:
        colours = _colours_of_16_bits(image, again)
        values = None if colours is None else to_unit(colours, 65535)
    return None if values is None else Samples(values, sample_format.bits)


def samples_of_array(array: np.ndarray, name: str, notes: Notes) -> Samples:
    """Those of an array `(H, W)` or `(H, W, C)` of any kind; white is its type's largest value, or `_white_level`.

    Raises:
        InputError: it is of another shape.
    """
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4):
        raise InputError(f"{name} has samples of shape {array.shape}; pictures of 1 to 4 channels are read.")
    peak = _peak(array)
    white = _guessed_white(peak, notes) if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)
    return Samples(to_unit(array, white, peak), 8 * array.dtype.itemsize)


def transpose_samples(values: np.ndarray, transpose: Image.Transpose) -> np.ndarray:
    """As `Image.transpose`, of `(H, W, C)`."""
    channels = [Image.fromarray(values[..., channel]).transpose(transpose) for channel in range(values.shape[2])]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


def to_unit(values: np.ndarray, white: float, peak: float = 1.0, inverted: bool = False) -> np.ndarray:
    """`values` from 0 to `white` as float32 `(H, W, C)` in 0..1; infinity is `peak`, NaN is 0."""
    values = values.reshape(*values.shape[:2], -1)
    result = np.empty(values.shape, np.float32)
    for first in range(0, len(values), STRIP_ROWS):
        rows = slice(first, first + STRIP_ROWS)
        relative = np.nan_to_num(values[rows].astype(np.float64), posinf=peak, neginf=0) / white
        result[rows] = (1 - relative if inverted else relative).clip(0, 1)
    return result


def to_integers(unit: np.ndarray, bits: int) -> np.ndarray:
    """Values in 0..1, clipped, as uint8 or uint16 of the same shape, from 0 to the largest number of `bits`."""
    result = np.empty(unit.shape, np.uint8 if bits <= 8 else np.uint16)
    for first in range(0, len(unit), STRIP_ROWS):
        rows = slice(first, first + STRIP_ROWS)
        result[rows] = (unit[rows] * np.float32(2**bits - 1)).clip(0, 2**bits - 1).round()
    return result


def to_8_bit_image(unit: np.ndarray) -> Image.Image:
    """Values `(H, W, C)` in 0..1 as L, LA, RGB or RGBA."""
    pixels = to_integers(unit, 8)
    return Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0])


def _grey(image: Image.Image, sample_format: SampleFormat, notes: Notes) -> np.ndarray:
    """Grey of 16 or 32 bits, or of floating point, with alpha where one value is transparent.

    White is the largest value of 16 bits, of 32 bits at least 65535 (255 where no value is larger), of floating point
    `_white_level`.
    """
    values = np.asarray(image)
    if image.mode == "I" and not sample_format.signed:
        values = values.view(np.uint32)  # Pillow has no unsigned mode
    peak = _peak(values)
    if image.mode == "F":
        white = _guessed_white(peak, notes)
    elif image.mode == "I":
        white = 255.0 if peak <= 255 else max(peak, 65535.0)
    else:
        white = 2.0**sample_format.bits - 1
    unit, transparent = to_unit(values, white, peak, sample_format.white_is_zero), image.info.get("transparency")
    if isinstance(transparent, int):
        unit = np.concatenate([unit, (values != transparent)[..., None].astype(np.float32)], axis=2)
    return unit


def _colours_of_16_bits(image: Image.Image, again: Callable[[], Image.Image]) -> np.ndarray | None:
    """uint16 of a PNG or TIFF of 16-bit colours, or of grey with alpha; None of any other file."""
    raw_mode = raw_mode_of(image)
    if raw_mode == GREY_ALPHA:
        _loaded(image)
        pairs = _decoded_as(again(), "RGBA")  # four channels of 8 bits in place of two of 16
        return pairs[..., 0::2] << 8 | pairs[..., 1::2]
    name, ending = raw_mode[:-4], raw_mode[-4:]
    is_planar = getattr(image, "tag_v2", {}).get(PLANAR_CONFIGURATION, 1) == 2
    if name not in HIGH_BYTE_MODES or ending not in LOW_BYTES or is_planar:
        return None
    transparent = image.info.pop("transparency", None)
    samples = np.asarray(_loaded(image)).astype(np.uint16) << 8
    samples |= _decoded_as(again(), name + LOW_BYTES[ending])
    if isinstance(transparent, tuple):
        is_opaque = (samples != np.array(transparent, np.uint16)).any(axis=2, keepdims=True)
        samples = np.concatenate([samples, is_opaque * np.uint16(65535)], axis=2)
    return samples


def _decoded_as(image: Any, raw_mode: str) -> np.ndarray:
    """The samples, uint16, of a file that is not loaded yet, as if they were of another raw mode."""
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode) for tile in image.tile
    ]
    image.info.pop("transparency", None)
    return np.asarray(_loaded(image)).astype(np.uint16)


def _of_video_frame(image: Image.Image, content: bytes, bits: int) -> np.ndarray | None:
    """Those of a HEIC or, where the extra `formats` is installed, of an AVIF."""
    if image.format == "HEIF":
        pages = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False, hdr_to_16bit=False)
        samples = np.asarray(pages[image.tell()])
    else:
        try:
            import imagecodecs
        except ImportError:
            return None
        samples = imagecodecs.avif_decode(content)
    return to_unit(samples, 2**bits - 1) if samples.dtype == np.uint16 else None


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _peak(values: np.ndarray) -> float:
    """The largest value that is finite."""
    return float(values.max(initial=0, where=np.isfinite(values)))


def _guessed_white(peak: float, notes: Notes) -> float:
    white = _white_level(peak)
    notes.add(f"the input's values reach {peak:g}, {white:g} was taken as white")
    return white


def _white_level(peak: float) -> float:
    """The value of white in a floating-point picture with the largest value `peak`.

    Files do not state it, so it is guessed: 1 up to a peak of 1, else that of 1, 255 and 65535 of which the peak is
    more than a quarter and at most the double, since resizing and sharpening overshoot; otherwise the peak.
    """
    usual = (1.0, 255.0, 65535.0)
    return 1.0 if peak <= 1 else next((white for white in usual if white / 4 < peak <= 2 * white), peak)
