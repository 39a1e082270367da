"""Makes low-resolution training and test pictures: plain bicubic, or a photograph's way through lens, sensor and web.

The real way follows the order of Real-ESRGAN's first-order model (Wang et al., ICCVW 2021): blur, resize, noise, JPEG. Noise
is milder than there, about what phone cameras do. Three in four pictures are sharpened before JPEG, as cameras do it, with
halos around edges: blur takes the finest detail, and sharpening then lifts what is coarser beyond the truth.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

RESAMPLING = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def crop_to_multiple(image: Image.Image, multiple: int) -> Image.Image:
    """The largest top-left part whose sides are multiples of `multiple`."""
    width, height = (side - side % multiple for side in image.size)
    return image.crop((0, 0, width, height))


def downscale_bicubic(image: Image.Image, scale: int = 4) -> Image.Image:
    """The field's standard test input: Pillow BICUBIC by 1/`scale`. Sides must be multiples of `scale`."""
    return image.resize((image.width // scale, image.height // scale), Image.Resampling.BICUBIC)


def degrade(image: Image.Image, rng: np.random.Generator, scale: int = 4) -> Image.Image:
    """A real-world low-resolution picture of an RGB `image`, 1/`scale` its size. `rng` decides everything."""
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
    """Gaussian noise of 0.5 to 12.6 grey levels, a third of the time the same in all three channels."""
    pixels = np.asarray(image, dtype=np.float32)
    channels = 1 if rng.random() < 1 / 3 else 3
    noise = rng.standard_normal((*pixels.shape[:2], channels)) * 10 ** rng.uniform(-0.3, 1.1)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).round().astype(np.uint8))


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
