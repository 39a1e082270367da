"""Samples of more than 8 bits, and of floating point, as bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from seesr.errors import InputError
from seesr.notes import Notes

STRIP_ROWS = 64
"""Rows that are converted at a time: that is computed in float64, which would take much memory for all."""


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
    def of(cls, image: Image.Image) -> SampleFormat:
        """The sample format of `image`.

        It must not be loaded yet unless it is a TIFF or was created in memory: loading forgets the raw mode.
        """
        tags = getattr(image, "tag_v2", None)
        if tags is not None:
            unsigned = tags.get(SAMPLEFORMAT, (1,))[0] == 1
            return cls(tags.get(BITSPERSAMPLE, (1,))[0], not unsigned, tags.get(PHOTOMETRIC_INTERPRETATION) == 0)
        if image.mode in ("I", "F"):
            return cls(32)
        raw_mode = raw_mode_of(image)
        # BGR;16 has 16 bits for all three channels.
        return cls(16 if image.mode.startswith("I") or (";16" in raw_mode and raw_mode != "BGR;16") else 8)


def raw_mode_of(image: Image.Image) -> str:
    """Pillow's raw mode of a file, such as `L;4`; empty once the image is loaded."""
    tiles = getattr(image, "tile", [])
    raw_mode = tiles[0][3] if tiles else ""
    return str(raw_mode[0] if isinstance(raw_mode, tuple) and raw_mode else raw_mode)


def samples_to_8_bit(samples: np.ndarray, name: str, notes: Notes) -> Image.Image:
    """Samples `(H, W)` or `(H, W, channels)` of any kind as L, LA, RGB or RGBA.

    White is the largest value of integers, of floating point `_white_level`.

    Raises:
        InputError: they are of another shape.
    """
    channels = 1 if samples.ndim == 2 else samples.shape[-1]
    if samples.ndim not in (2, 3) or channels not in (1, 2, 3, 4):
        raise InputError(f"{name} has samples of shape {samples.shape}; pictures of 1 to 4 channels are read.")
    peak = _peak(samples)
    white = _guessed_white(peak, notes) if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max)
    notes.add(f"{samples.dtype.itemsize * 8} bits a channel, the result has 8")
    pixels = _to_bytes(samples, white, peak)
    return Image.fromarray(pixels if channels > 1 else pixels.reshape(samples.shape[:2]))


def grey_to_8_bit(image: Image.Image, sample_format: SampleFormat, notes: Notes) -> Image.Image:
    """Grey of 16 or 32 bits, or of floating point, as mode L, or LA where one value is transparent.

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
    result = Image.fromarray(_to_bytes(values, white, peak, sample_format.white_is_zero))
    result.info = {name: value for name, value in image.info.items() if name != "transparency"}
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        result.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return result


def _peak(values: np.ndarray) -> float:
    """The largest value that is finite."""
    return float(values.max(initial=0, where=np.isfinite(values)))


def _to_bytes(values: np.ndarray, white: float, peak: float, inverted: bool = False) -> np.ndarray:
    """`values` from 0 to `white` as bytes; infinity is `peak`, NaN is 0."""
    result = np.empty(values.shape, np.uint8)
    for first in range(0, len(values), STRIP_ROWS):
        rows = slice(first, first + STRIP_ROWS)
        relative = np.nan_to_num(values[rows].astype(np.float64), posinf=peak, neginf=0) / white
        result[rows] = ((1 - relative if inverted else relative) * 255).clip(0, 255).round()
    return result


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
