"""Colours under transparency: whatever a file hides there must not shine through at the edges once they are enlarged."""

from __future__ import annotations

import numpy as np
from PIL import Image


def bleed(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """`rgb` with the colours of fully transparent pixels taken from the visible ones around them.

    Averages weighted by alpha are made at half the size, again and again; what no pixel covers is filled from the next
    smaller size ("push-pull", Gortler et al., SIGGRAPH 1996). Visible pixels stay as they are.
    """
    if alpha.getextrema()[0] > 0:
        return rgb
    colours, weights = np.asarray(rgb), np.asarray(alpha, dtype=np.float32)[..., None] / 255
    filled = _fill(_halve(colours * weights), _halve(weights)).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.where(weights > 0, colours, _doubled(filled, *weights.shape[:2])))


def _fill(weighted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Colours everywhere from `weighted` colours `(H, W, 3)` and their `weights` `(H, W, 1)`."""
    known = weighted / np.maximum(weights, 1e-6)
    height, width = weights.shape[:2]
    if weights.min() > 0 or max(height, width) == 1:
        return known
    smaller = _fill(_halve(weighted), _halve(weights))
    return np.where(weights > 0, known, _doubled(smaller, height, width))


def _halve(values: np.ndarray) -> np.ndarray:
    """Sums of 2x2 pixels, an odd side continued with nothing."""
    height, width, channels = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0))) if height % 2 or width % 2 else values
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, channels).sum(axis=(1, 3))


def _doubled(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel twice in both directions, cut to this size."""
    return values.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
