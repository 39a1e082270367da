"""Alpha bleeding: fully transparent pixels get the colours around them, so that enlarging does not blend in hidden ones."""

from __future__ import annotations

import numpy as np
from PIL import Image


def bleed(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """`rgb` with the colours of fully transparent pixels replaced by those of the visible pixels around them.

    Push-pull (Gortler et al., SIGGRAPH 1996): averages weighted by alpha are computed at half the size, recursively, and
    each pixel without coverage is filled from the next smaller size. Visible pixels do not change.
    """
    if alpha.histogram()[0] == 0:  # none is fully transparent
        return rgb
    colours, weights = np.asarray(rgb), np.asarray(alpha, dtype=np.float32)[..., None] / 255
    filled = _fill(_sum_2x2(colours * weights), _sum_2x2(weights)).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.where(weights > 0, colours, _double(filled, *weights.shape[:2])))


def _fill(weighted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Colours `(H, W, 3)` of every pixel, from `weighted` colours `(H, W, 3)` and their `weights` `(H, W, 1)`."""
    known = weighted / np.maximum(weights, 1e-6)
    height, width = weights.shape[:2]
    if weights.min() > 0 or max(height, width) == 1:
        return known
    smaller = _fill(_sum_2x2(weighted), _sum_2x2(weights))
    return np.where(weights > 0, known, _double(smaller, height, width))


def _sum_2x2(values: np.ndarray) -> np.ndarray:
    """Sums over blocks of 2x2 pixels; odd sides are padded with zeros."""
    height, width, channels = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0))) if height % 2 or width % 2 else values
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, channels).sum(axis=(1, 3))


def _double(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour upsampling by 2, cropped to `height` x `width`."""
    return values.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
