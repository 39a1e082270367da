"""Edge enhancement that amplifies details above the noise and leaves the noise as it is.

It applies a gain to the detail subbands of the luma's stationary wavelet transform (Nason and Silverman, 1995). The noise
level is estimated by the median absolute value of the finest diagonal subband (Donoho and Johnstone, Biometrika 1994);
coefficients near it are not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pywt
from PIL import Image

from seesr.images.samples import Pixels

WAVELET, LEVELS = "db2", 2
"""Two levels hold details of up to four pixels, which are those that enlarging blurs."""
GAIN = 0.5
"""Relative increase of a coefficient at strength 1."""
NO_GAIN_THRESHOLD, FULL_GAIN_THRESHOLD = 2.0, 4.0
"""In standard deviations of the noise in a subband. The gain rises linearly from none to full between the two."""
MIN_NOISE = 0.5
"""Grey levels: about the noise of rounding to whole grey levels."""
NORMAL_MEDIAN = 0.6745
"""Median of the absolute value of a standard normal variable."""
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
STRIP_ROWS, HALO = 512, 32
"""Rows that are transformed at a time, and rows added around them. The transform depends on fewer, so that the result does
not depend on the strips."""


def enhance_edges(pixels: Pixels, strength: float, strip_rows: int = STRIP_ROWS) -> Pixels:
    """An RGB picture with stronger edges; `strength` goes from 0 (no change) to 2."""
    if strength == 0:
        return pixels
    if isinstance(pixels, np.ndarray):
        return _enhance(pixels * np.float32(255), strength, strip_rows) / np.float32(255)
    return Image.fromarray(_enhance(np.asarray(pixels), strength, strip_rows))


def _enhance(rgb: np.ndarray, strength: float, strip_rows: int) -> np.ndarray:
    """Of grey levels, uint8 or float32, as they were."""
    result, noise = np.empty_like(rgb), estimate_noise(rgb, strip_rows)
    for rows, inner, luma in _strips(rgb, strip_rows):
        changed = rgb[rows] + (_amplify_details(luma, noise, strength) - luma)[inner][..., None]
        result[rows] = (changed.round() if rgb.dtype == np.uint8 else changed).clip(0, 255)
    return result


def estimate_noise(rgb: np.ndarray, strip_rows: int = STRIP_ROWS) -> float:
    """Standard deviation of the luma noise of RGB `(H, W, 3)`, in grey levels as its values are, at least `MIN_NOISE`."""
    strips = _strips(rgb, strip_rows)
    details = [_transform(luma, 1)[1][2][inner][::2, ::2].ravel() for _, inner, luma in strips]
    return max(MIN_NOISE, float(np.median(np.abs(np.concatenate(details)))) / NORMAL_MEDIAN / 0.5)


def _amplify_details(luma: np.ndarray, noise: float, strength: float) -> np.ndarray:
    approximation, *levels = _transform(luma, LEVELS)
    amplified = [approximation]
    for level, subbands in zip(range(LEVELS, 0, -1), levels, strict=True):
        # White noise of standard deviation 1 has 0.5 ** level in the subbands of a level.
        low, high = (threshold * noise * 0.5**level for threshold in (NO_GAIN_THRESHOLD, FULL_GAIN_THRESHOLD))
        gains = [1 + GAIN * strength * ((np.abs(subband) - low) / (high - low)).clip(0, 1) for subband in subbands]
        amplified.append(tuple(subband * gain for subband, gain in zip(subbands, gains, strict=True)))
    return pywt.iswt2(amplified, WAVELET, norm=True)


def _transform(luma: np.ndarray, levels: int) -> list[Any]:
    return pywt.swt2(luma, WAVELET, levels, trim_approx=True, norm=True)


def _strips(rgb: np.ndarray, strip_rows: int) -> Iterator[tuple[slice, tuple[slice, slice], np.ndarray]]:
    """(rows of the picture, position of these rows in the luma, luma with a halo mirrored beyond the picture's border)."""
    height, width = rgb.shape[:2]
    for top in range(0, height, strip_rows):
        bottom = min(top + strip_rows, height)
        first, last = max(top - HALO, 0), min(bottom + HALO, height)
        luma = rgb[first:last].astype(np.float32) @ LUMA
        # The transform requires sides that are multiples of 4, and wraps around at the borders.
        padding = [(HALO, HALO + -side % 2**LEVELS) for side in luma.shape]
        inner = slice(HALO + top - first, HALO + bottom - first), slice(HALO, HALO + width)
        yield slice(top, bottom), inner, np.pad(luma, padding, mode="symmetric")
