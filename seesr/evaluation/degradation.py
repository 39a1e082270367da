"""Degradations that make low-resolution training and test images: bicubic downscaling, or a model of real photographs.

The model applies the first-order degradations of Real-ESRGAN (Wang et al., ICCVW 2021) in their order: blur, resize, noise,
JPEG. The noise is weaker, about that of phone cameras. Three in four images are sharpened before JPEG, as cameras do, which
causes halos: the blur removes the finest details, and sharpening then exaggerates coarser ones.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

RESAMPLING = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def crop_to_multiple(image: Image.Image, multiple: int) -> Image.Image:
    """The largest top-left crop whose sides are multiples of `multiple`."""
    width, height = (side - side % multiple for side in image.size)
    return image.crop((0, 0, width, height))


def downscale_bicubic(image: Image.Image, scale: int = 4) -> Image.Image:
    """The usual test input: Pillow's bicubic by 1/`scale`. Both sides must be multiples of `scale`."""
    return image.resize((image.width // scale, image.height // scale), Image.Resampling.BICUBIC)


def degrade(image: Image.Image, rng: np.random.Generator, scale: int = 4) -> Image.Image:
    """`image` (RGB), degraded and reduced to 1/`scale` of its size; all random choices come from `rng`."""
    target = (image.width // scale, image.height // scale)
    if rng.random() < 0.9:
        radius, ratio = scale * rng.uniform(0.2, 0.9), rng.uniform(0.7, 1.4)
        image = image.filter(ImageFilter.GaussianBlur((radius * ratio**0.5, radius / ratio**0.5)))
    if rng.random() < 0.4:
        factor = rng.uniform(0.3, 0.9)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, RESAMPLING[rng.integers(len(RESAMPLING))])
    image = image.resize(target, RESAMPLING[rng.integers(len(RESAMPLING))])
    if rng.random() < 0.4:
        image = _add_noise(image, rng)
    if rng.random() < 0.75:
        image = image.filter(ImageFilter.UnsharpMask(rng.uniform(0.7, 2.5), int(rng.integers(20, 121)), threshold=0))
    if rng.random() < 0.4:
        image = _jpeg(image, int(rng.integers(30, 96)))
    return image


def _add_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise with a standard deviation of 0.5 to 12.6 grey levels; in a third of the cases it is grey."""
    pixels = np.asarray(image, dtype=np.float32)
    channels = 1 if rng.random() < 1 / 3 else 3
    noise = rng.standard_normal((*pixels.shape[:2], channels)) * 10 ** rng.uniform(-0.3, 1.1)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).round().astype(np.uint8))


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
