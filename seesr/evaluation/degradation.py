"""Degradations that make low-resolution training and test images: bicubic downscaling, alone or with JPEG, noise or both,
and a model of a camera's photographs.

That model applies the first-order degradations of Real-ESRGAN (Wang et al., ICCVW 2021) in their order: blur, resize, noise,
JPEG. The noise is weaker, about that of phone cameras. Three in four images are sharpened before JPEG, as cameras do, which
causes halos: the blur removes the finest details, and sharpening then exaggerates coarser ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable

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
        image = _random_noise(image, rng)
    if rng.random() < 0.75:
        image = image.filter(ImageFilter.UnsharpMask(rng.uniform(0.7, 2.5), int(rng.integers(20, 121)), threshold=0))
    if rng.random() < 0.4:
        image = jpeg(image, int(rng.integers(30, 96)))
    return image


def reduce_with_jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bicubic, then JPEG at quality 35."""
    return jpeg(downscale_bicubic(image), 35)


def reduce_with_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bicubic, then white Gaussian noise of 15 levels."""
    return _white_noise(downscale_bicubic(image), 15, rng)


def reduce_twice(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur of 1.2 pixels, bicubic to a third, noise of 8, JPEG at 60; bilinear to a quarter, noise of 3, JPEG at 50."""
    image = image.filter(ImageFilter.GaussianBlur(1.2))
    third = image.resize((round(image.width / 3), round(image.height / 3)), Image.Resampling.BICUBIC)
    third = jpeg(_white_noise(third, 8, rng), 60)
    quarter = third.resize((image.width // 4, image.height // 4), Image.Resampling.BILINEAR)
    return jpeg(_white_noise(quarter, 3, rng), 50)


def reduce_as_old(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bicubic, then grey grain of 12 levels over 2 pixels, and JPEG at quality 70; `fade` comes before it."""
    low = downscale_bicubic(image)
    return jpeg(add_noise(low, 12 * grain((low.height, low.width, 1), rng)), 70)


def fade(image: Image.Image) -> Image.Image:
    """Six tenths of the contrast: black becomes 60 of 255, white 213."""
    return image.point([round(60 + 0.6 * value) for value in range(256)] * 3)


KINDS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "jpeg": reduce_with_jpeg,
    "noise": reduce_with_noise,
    "mixed": reduce_twice,
    "old": reduce_as_old,
    "camera": degrade,
}
"""What makes the input, a quarter as large, of a ground truth whose sides are multiples of 4; by the kind of degradation."""


def degraded_pair(truth: Image.Image, kind: str, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """The input that one of `KINDS` makes of `truth`, and the truth it is to be compared with.

    The latter is `truth` itself, but for `old` faded like the input: nobody asks an enlargement to undo that.
    """
    if kind == "old":
        truth = fade(truth)
    return KINDS[kind](truth, rng), truth


def _white_noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    return add_noise(image, deviation * rng.standard_normal((image.height, image.width, 3)))


def jpeg(image: Image.Image, quality: int, subsampled: bool = True) -> Image.Image:
    """Compressed and read again; its colours at half the size (4:2:0) unless `subsampled` is false."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, subsampling="4:2:0" if subsampled else "4:4:4")
    return Image.open(buffer).convert("RGB")


def add_noise(image: Image.Image, noise: np.ndarray) -> Image.Image:
    """`noise` `(H, W, 1)`, grey, or `(H, W, 3)` is in grey levels."""
    pixels = np.asarray(image, dtype=np.float32) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))


def grain(shape: tuple[int, int, int], rng: np.random.Generator, deviation: float = 1.0) -> np.ndarray:
    """Noise `(H, W, C)` with a deviation of 1 whose pixels are not independent: white noise, blurred by a Gaussian.

    Args:
        deviation: of the Gaussian, in pixels; at 1 a pixel's correlation with the one 2 pixels away is 1/e.
    """
    height, width, channels = shape
    frequencies = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2
    transfer = np.exp(-2 * (np.pi * deviation) ** 2 * frequencies)
    white = rng.standard_normal((channels, height, width))
    noise = np.fft.irfft2(np.fft.rfft2(white) * transfer, (height, width))
    return (noise / noise.std()).transpose(1, 2, 0)


def _random_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise with a standard deviation of 0.5 to 12.6 grey levels; in a third of the cases it is grey."""
    channels = 1 if rng.random() < 1 / 3 else 3
    noise = rng.standard_normal((image.height, image.width, channels)) * 10 ** rng.uniform(-0.3, 1.1)
    return add_noise(image, noise)
