"""Optional unsharp mask on the finished picture."""

from __future__ import annotations

from PIL import Image, ImageFilter

RADIUS = 1.2
"""Pixels."""


def sharpen(image: Image.Image, strength: float) -> Image.Image:
    """Unsharp mask; `strength` 0 changes nothing, 1 doubles the finest detail."""
    if strength == 0:
        return image
    return image.filter(ImageFilter.UnsharpMask(radius=RADIUS, percent=round(100 * strength), threshold=0))
