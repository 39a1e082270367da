"""Transparency: what lies under it, and how its edge is enlarged."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from seesr.images.sizes import Size

CLEAR, OPAQUE = 8, 247
"""Alpha between them is that of a smooth edge."""
HARD_SHARE = 0.1
"""Of the pixels at an edge, at most so many are between clear and opaque where the edge is hard."""
EDGE_BLUR, EDGE_WIDTH = 0.6, 2.0
"""Deviation of the blur that takes the stairs out, in the input's pixels, and the width of the new edge in the output's."""


def bleed(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """`rgb` with the colours of fully transparent pixels replaced by those of the visible pixels around them.

    So enlarging does not blend in hidden colours.
    Push-pull (Gortler et al., SIGGRAPH 1996): averages weighted by alpha are computed at half the size, recursively, and
    each pixel without coverage is filled from the next smaller size. Visible pixels do not change.
    """
    if alpha.histogram()[0] == 0:  # none is fully transparent
        return rgb
    colours, weights = np.asarray(rgb), np.asarray(alpha, dtype=np.float32)[..., None] / 255
    filled = _fill(_sum_2x2(colours * weights), _sum_2x2(weights)).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.where(weights > 0, colours, _double(filled, *weights.shape[:2])))


def enlarge_alpha(alpha: Image.Image, size: Size) -> Image.Image:
    """`alpha` (mode L) at `size`; a hard edge, which bicubic would make stairs of, becomes a smooth line."""
    scale = max(size[0] / alpha.width, size[1] / alpha.height)
    larger = alpha.resize(size, Image.Resampling.BICUBIC)
    if scale <= 1 or not _is_hard(alpha):
        return larger
    blur = EDGE_BLUR * scale
    # A blurred edge rises by 1 / (blur * sqrt(2 pi)) a pixel at its middle.
    gain = max(1.0, blur * (2 * np.pi) ** 0.5 / EDGE_WIDTH)
    return larger.filter(ImageFilter.GaussianBlur(blur)).point([round((v - 127.5) * gain + 127.5) for v in range(256)])


def _is_hard(alpha: Image.Image) -> bool:
    """Whether the steps between clear and opaque take one pixel."""
    low, high = (np.asarray(alpha.filter(kind(3))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    at_edge = (low < CLEAR) & (high > OPAQUE)
    values = np.asarray(alpha)[at_edge]
    return bool(values.size) and bool(((values > CLEAR) & (values < OPAQUE)).mean() <= HARD_SHARE)


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
