"""Edge enhancement: details that stand out from the noise are made stronger, noise is not.

A gain on the detail bands of an undecimated wavelet transform (Nason and Silverman, 1995) of the luma. The noise is
estimated from the finest diagonal band by its median, after Donoho and Johnstone (Biometrika 1994); what is near it stays as
it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pywt
from PIL import Image

WAVELET, LEVELS = "db2", 2
"""Two levels: the details of up to four pixels, which enlarging makes soft."""
GAIN = 0.5
"""By how much details grow at strength 1, as a share of themselves."""
UNCHANGED_BELOW, FULL_GAIN_FROM = 2.0, 4.0
"""Detail over the noise's standard deviation in its band; in between the gain rises."""
LEAST_NOISE = 0.5
"""Grey levels: rounding to whole ones makes about as much."""
NORMAL_MEDIAN = 0.6745
"""Median of the absolute value of a normal variable of deviation 1."""
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
BAND, HALO = 512, 32
"""Rows that are worked on at a time, and rows around them, more than the transform sees: the result is that of the whole."""


def enhance_edges(image: Image.Image, strength: float) -> Image.Image:
    """An RGB picture with stronger edges; `strength` is 0 (nothing changes) to 2."""
    if strength == 0:
        return image
    rgb, noise = np.asarray(image), noise_level(image)
    result = np.empty_like(rgb)
    for rows, inner, luma in _bands(rgb):
        change = (_with_gain(luma, noise, strength) - luma)[inner]
        result[rows] = (rgb[rows] + change[..., None]).round().clip(0, 255)
    return Image.fromarray(result)


def noise_level(image: Image.Image) -> float:
    """Standard deviation of the luma's noise in grey levels, of an RGB picture."""
    details = [_transform(luma, 1)[1][2][inner][::2, ::2].ravel() for _, inner, luma in _bands(np.asarray(image))]
    return max(LEAST_NOISE, float(np.median(np.abs(np.concatenate(details)))) / NORMAL_MEDIAN / 0.5)


def _with_gain(luma: np.ndarray, noise: float, strength: float) -> np.ndarray:
    approximation, *levels = _transform(luma, LEVELS)
    amplified = [approximation]
    for level, bands in zip(range(LEVELS, 0, -1), levels, strict=True):
        # White noise of deviation 1 has 0.5 ** level in the bands of a level.
        threshold, full = (limit * noise * 0.5**level for limit in (UNCHANGED_BELOW, FULL_GAIN_FROM))
        gains = [1 + GAIN * strength * ((np.abs(band) - threshold) / (full - threshold)).clip(0, 1) for band in bands]
        amplified.append(tuple(band * gain for band, gain in zip(bands, gains, strict=True)))
    return pywt.iswt2(amplified, WAVELET, norm=True)


def _transform(luma: np.ndarray, levels: int) -> list:
    return pywt.swt2(luma, WAVELET, levels, trim_approx=True, norm=True)


def _bands(rgb: np.ndarray) -> Iterator[tuple[slice, tuple[slice, slice], np.ndarray]]:
    """Rows of the picture; where they are in the luma that is given with them; this luma, mirrored beyond the borders."""
    height, width = rgb.shape[:2]
    for top in range(0, height, BAND):
        bottom = min(top + BAND, height)
        first, last = max(top - HALO, 0), min(bottom + HALO, height)
        luma = rgb[first:last].astype(np.float32) @ LUMA
        # The transform takes multiples of 4 and goes on at the other end.
        sides = [(HALO, HALO + -side % 2**LEVELS) for side in luma.shape]
        inner = slice(HALO + top - first, HALO + bottom - first), slice(HALO, HALO + width)
        yield slice(top, bottom), inner, np.pad(luma, sides, mode="symmetric")
