"""Optional unsharp mask on the finished picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

RADIUS = 1.2
"""Pixels."""
KERNEL_RADIUS = 4
"""Pixels to each side, of the kernel for what is not rounded to 8 bits."""


def sharpen(image: Image.Image, strength: float) -> Image.Image:
    """Unsharp mask; `strength` 0 changes nothing, 1 doubles the finest detail."""
    if strength == 0:
        return image
    return image.filter(ImageFilter.UnsharpMask(radius=RADIUS, percent=round(100 * strength), threshold=0))


def sharpen_samples(values: np.ndarray, strength: float) -> np.ndarray:
    """As `sharpen`, of `(H, W, 3)` float32 in 0..1."""
    if strength == 0:
        return values
    offsets = torch.arange(-KERNEL_RADIUS, KERNEL_RADIUS + 1)
    kernel = torch.exp(-0.5 * (offsets / RADIUS) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    result = np.empty_like(values)
    for channel in range(values.shape[2]):
        plane = torch.from_numpy(np.ascontiguousarray(values[..., channel]))[None, None]
        blurred = F.conv2d(F.pad(plane, (KERNEL_RADIUS,) * 4, mode="replicate"), kernel)
        blurred = F.conv2d(blurred, kernel.transpose(2, 3))
        result[..., channel] = torch.lerp(blurred, plane, 1 + strength)[0, 0].clamp(0, 1).numpy()
    return result
