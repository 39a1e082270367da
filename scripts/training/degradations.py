"""Bad pictures to teach the cleaner on: Real-ESRGAN's second-order model of degradations (Wang et al., ICCVW 2021).

What is not of that paper: its noise may be grain, whose pixels are not independent; a share of inputs goes through the
camera's model of `seesr/evaluation/degradation.py`, a share has noise or JPEG alone, and a share nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from scripts.training.photographs import SCALE, as_cameras_do
from seesr.evaluation.degradation import add_noise, downscale_bicubic, grain, jpeg

SHARES = {"plain": 0.24, "camera": 0.22, "second order": 0.26, "web": 0.28}
"""How often an input is degraded in each manner; plain is bicubic reduction alone, which the cleaner is to leave alone."""
KERNEL_RADIUS = 10
"""Pixels."""
FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
QUALITIES = (25, 95)
"""Of JPEG, worst and best."""
MAX_NOISE = 30.0
"""Largest standard deviation of noise, in grey levels."""


def low_quality(high: Image.Image, rng: np.random.Generator, manners: Sequence[str] = tuple(SHARES)) -> Image.Image:
    """`high` (RGB, sides multiples of 4) reduced to a quarter, and degraded in one of `manners`, by their `SHARES`."""
    shares = np.array([SHARES[manner] for manner in manners])
    manner = rng.choice(manners, p=shares / shares.sum())
    if manner == "plain":
        return downscale_bicubic(high, SCALE)
    if manner == "camera":
        return as_cameras_do(high, rng)
    return _second_order(high, rng) if manner == "second order" else _web(high, rng)


def tone(high: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One picture in six as faded, dark, grey or brownish as an old print: what the cleaner is to leave so."""
    if rng.random() > 1 / 6:
        return high
    pixels = np.asarray(high, dtype=np.float32) / 255
    if rng.random() < 0.6:
        grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        tint = rng.uniform(0, 0.12) * np.array([1, 0.1, -1], np.float32)
        pixels = grey[..., None] + tint * (4 * grey * (1 - grey))[..., None]
    black, white = rng.uniform(0, 0.3), rng.uniform(0.7, 1)
    pixels = black + (white - black) * pixels.clip(0, 1) ** rng.uniform(0.7, 1.4)
    return _to_image(255 * pixels)


def _second_order(high: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur, resize, noise and JPEG; blur, resize and noise again, lighter; the last resize with a sinc filter and JPEG, in
    either order."""
    small = (high.width // SCALE, high.height // SCALE)
    image = _blur(high, rng, largest=3.0)
    image = _resize(image, high.size, rng, (0.25, 1.5))
    image = _noise(image, rng, MAX_NOISE)
    image = jpeg(image, _quality(rng))
    if rng.random() < 0.8:
        image = _blur(image, rng, largest=1.5)
    image = _resize(image, small, rng, (0.6, 1.3))
    image = _noise(image, rng, 0.7 * MAX_NOISE)
    steps = [lambda image: _sharp_cut(image.resize(small, _filter(rng)), rng), lambda image: jpeg(image, _quality(rng))]
    for step in steps if rng.random() < 0.5 else reversed(steps):
        image = step(image)
    return image


def _web(high: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Reduced with little or no blur, then noisy, compressed, or both; one in five of the compressed is saved again."""
    if rng.random() < 0.3:
        high = high.filter(ImageFilter.GaussianBlur(SCALE * rng.uniform(0.15, 0.5)))
    kernel = Image.Resampling.BICUBIC if rng.random() < 0.6 else _filter(rng)
    image, manner = high.resize((high.width // SCALE, high.height // SCALE), kernel), rng.random()
    if manner < 0.6:
        image = _some_noise(image, rng, MAX_NOISE)
    if manner > 0.35:
        image = jpeg(image, _quality(rng), subsampled=rng.random() < 0.7)
        if rng.random() < 0.2:
            image = jpeg(image, _quality(rng))
    return image


def _noise(image: Image.Image, rng: np.random.Generator, strongest: float) -> Image.Image:
    return _some_noise(image, rng, strongest) if rng.random() < 0.8 else image


def _some_noise(image: Image.Image, rng: np.random.Generator, strongest: float) -> Image.Image:
    """Gaussian, Poisson or grain, grey in two of five cases; weak noise is more frequent than strong."""
    level, channels, kind = 1 + (strongest - 1) * rng.random() ** 1.5, 1 if rng.random() < 0.4 else 3, rng.random()
    if kind < 0.4:
        return add_noise(image, rng.standard_normal((image.height, image.width, channels), np.float32) * level)
    if kind < 0.65:
        return add_noise(image, _photon_noise(image, rng, level, channels))
    return add_noise(image, level * grain((image.height, image.width, channels), rng, rng.uniform(0.4, 1.2)))


def _photon_noise(image: Image.Image, rng: np.random.Generator, level: float, channels: int) -> np.ndarray:
    """What counting photons adds: a deviation of `level` at white, less where it is darker; grey with one channel."""
    pixels = np.asarray(image if channels == 3 else image.convert("L"), dtype=np.float32).reshape(
        image.height, image.width, channels
    )
    per_level = 255 / level**2
    return rng.poisson(pixels * per_level) / per_level - pixels


def _quality(rng: np.random.Generator) -> int:
    return int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))


def _filter(rng: np.random.Generator) -> Image.Resampling:
    return FILTERS[rng.integers(len(FILTERS))]


def _resize(
    image: Image.Image, size: tuple[int, int], rng: np.random.Generator, factors: tuple[float, float]
) -> Image.Image:
    """To `size`, times a factor in three of four cases; smaller and larger ones are equally frequent."""
    smallest, largest = factors
    factor = 1.0 if rng.random() < 0.25 else rng.uniform(smallest, 1) if rng.random() < 0.5 else rng.uniform(1, largest)
    return image.resize((round(size[0] * factor), round(size[1] * factor)), _filter(rng))


def _sharp_cut(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _filtered(image, sinc_kernel(rng.uniform(0.33, 1))) if rng.random() < 0.6 else image


def _blur(image: Image.Image, rng: np.random.Generator, largest: float) -> Image.Image:
    if rng.random() < 0.1:
        return _filtered(image, sinc_kernel(rng.uniform(0.2, 1)))
    shapes: tuple[Callable[[np.ndarray], np.ndarray], ...] = (gaussian, generalised(rng), plateau(rng))
    shape = shapes[rng.choice(3, p=(0.7, 0.15, 0.15))]
    along, across = rng.uniform(0.2, largest, 2)
    if rng.random() < 0.6:
        across = along
    return _filtered(image, blur_kernel(shape, along, across, rng.uniform(0, np.pi)))


def gaussian(distance: np.ndarray) -> np.ndarray:
    """By the square of the distance in deviations."""
    return np.exp(-distance / 2)


def generalised(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A Gaussian whose exponent is another: pointed below 1, flat above."""
    exponent = rng.uniform(0.5, 4)
    return lambda distance: np.exp(-(distance**exponent) / 2)


def plateau(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Flat in the middle, with a long tail."""
    exponent = rng.uniform(1, 2)
    return lambda distance: 1 / (1 + distance**exponent)


def blur_kernel(shape: Callable[[np.ndarray], np.ndarray], along: float, across: float, angle: float) -> np.ndarray:
    """`(21, 21)` with sum 1; `along` and `across` are its deviations in pixels on its two axes, turned by `angle`."""
    y, x = np.mgrid[-KERNEL_RADIUS : KERNEL_RADIUS + 1, -KERNEL_RADIUS : KERNEL_RADIUS + 1]
    first, second = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = shape((first / along) ** 2 + (second / across) ** 2)
    return kernel / kernel.sum()


def sinc_kernel(cutoff: float) -> np.ndarray:
    """`(21, 21)` with sum 1: passes frequencies up to `cutoff` of the highest, in all directions; it leaves ringing."""
    frequency = np.fft.fftfreq(8 * KERNEL_RADIUS) * 2
    spectrum = (np.hypot(frequency[:, None], frequency) <= cutoff).astype(float)
    kernel = np.fft.fftshift(np.fft.ifft2(spectrum).real)
    middle = slice(3 * KERNEL_RADIUS, 5 * KERNEL_RADIUS + 1)
    kernel = kernel[middle, middle]
    return kernel / kernel.sum()


def _filtered(image: Image.Image, kernel: np.ndarray) -> Image.Image:
    """Convolved by way of Fourier; the picture is mirrored at its edges."""
    radius, (height, width) = KERNEL_RADIUS, (image.height, image.width)
    pixels = np.pad(np.asarray(image, dtype=np.float32), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    shape = tuple(_next_fast(side) for side in pixels.shape[:2])
    spectrum = np.fft.rfft2(pixels, shape, axes=(0, 1)) * np.fft.rfft2(kernel.astype(np.float32), shape)[..., None]
    result = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    return _to_image(result[2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width])


def _next_fast(side: int) -> int:
    """A multiple of 32 that is not smaller, as Fourier transforms like."""
    return -(-side // 32) * 32


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
