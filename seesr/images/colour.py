"""Colour fixes: the output keeps its detail and takes the colours of the input.

Wavelet colour fix as in StableSR (Wang et al., IJCV 2024): five levels of an a-trous B-spline wavelet. AdaIN as in Huang
and Belongie (ICCV 2017). Neither clamps its result.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
HALO = 2**LEVELS - 1
"""Pixels to each side on which a low-pass filtered pixel depends."""
STRIP_ROWS = 512
"""Rows that are filtered at a time: this saves memory and does not change the result."""
ADAIN_EPSILON = 1e-5
RGB_TO_XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
"""Of linear sRGB, relative to its white D65 (IEC 61966-2-1)."""
LAB_BREAK, LAB_SLOPE = 6 / 29, 841 / 108
"""CIE 15: where the cube root becomes a line, and its slope."""


def wavelet_fix(target: Tensor, source: Tensor) -> Tensor:
    """The high frequencies of `target` added to the low frequencies of `source`, both `(B, 3, H, W)`."""
    result = torch.empty_like(target)
    for rows, around, within in _strips(target.shape[2]):
        change = low_frequencies(source[:, :, around] - target[:, :, around])
        result[:, :, rows] = target[:, :, rows] + change[:, :, within]
    return result


def lab_fix(target: Tensor, source: Tensor) -> Tensor:
    """As `wavelet_fix`, but with frequencies of CIELAB, whose distances are those that eyes see."""
    result = torch.empty_like(target)
    for rows, around, within in _strips(target.shape[2]):
        lab = to_lab(target[:, :, around])
        change = low_frequencies(to_lab(source[:, :, around]) - lab)
        result[:, :, rows] = from_lab((lab + change)[:, :, within])
    return result


def to_lab(rgb: Tensor) -> Tensor:
    """CIELAB (L 0 to 100) at D65 of sRGB in 0..1, `(B, 3, H, W)`; values outside are mirrored at 0."""
    magnitude = rgb.abs()
    linear = torch.where(magnitude <= 0.04045, magnitude / 12.92, ((magnitude + 0.055) / 1.055) ** 2.4) * rgb.sign()
    x, y, z = _mix(linear, torch.tensor(RGB_TO_XYZ)).unbind(dim=1)
    x, y, z = (
        torch.where(one > LAB_BREAK**3, one.clamp(min=1e-9) ** (1 / 3), LAB_SLOPE * one + 4 / 29) for one in (x, y, z)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def from_lab(lab: Tensor) -> Tensor:
    """Inverse of `to_lab`."""
    lightness, a, b = lab.unbind(dim=1)
    y = (lightness + 16) / 116
    parts = [torch.where(one > LAB_BREAK, one**3, (one - 4 / 29) / LAB_SLOPE) for one in (y + a / 500, y, y - b / 200)]
    linear = _mix(torch.stack(parts, dim=1), torch.tensor(RGB_TO_XYZ, dtype=torch.float64).inverse())
    magnitude = linear.abs()
    curve = torch.where(magnitude <= 0.0031308, 12.92 * magnitude, 1.055 * magnitude.clamp(min=1e-9) ** (1 / 2.4) - 0.055)
    return curve * linear.sign()


def _mix(pixels: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("oi,bihw->bohw", matrix.to(pixels), pixels)


def _strips(height: int) -> Iterator[tuple[slice, slice, slice]]:
    """Rows of a strip, the rows on which it depends, and the strip within these."""
    for top in range(0, height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, height)
        first, last = max(top - HALO, 0), min(bottom + HALO, height)
        yield slice(top, bottom), slice(first, last), slice(top - first, bottom - first)


def low_frequencies(image: Tensor) -> Tensor:
    """`image` `(B, C, H, W)` low-pass filtered by five a-trous levels of the separable kernel (1, 2, 1) / 4.

    Borders are replicated.
    """
    kernel = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    row = kernel.view(1, 1, 1, 3).expand(channels, 1, 1, 3)
    column = kernel.view(1, 1, 3, 1).expand(channels, 1, 3, 1)
    for level in range(LEVELS):
        dilation = 2**level
        padded = F.pad(image, (dilation, dilation, dilation, dilation), mode="replicate")
        image = F.conv2d(padded, row, dilation=dilation, groups=channels)
        image = F.conv2d(image, column, dilation=dilation, groups=channels)
    return image


def adain_fix(target: Tensor, source: Tensor) -> Tensor:
    """`target` with the mean and standard deviation that each channel of `source` has, both `(B, 3, H, W)`."""
    target_mean, target_std = _mean_and_std(target)
    source_mean, source_std = _mean_and_std(source)
    return (target - target_mean) / target_std * source_std + source_mean


def _mean_and_std(image: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(image, dim=(2, 3), keepdim=True)
    return mean, (variance + ADAIN_EPSILON).sqrt()


COLOR_FIXES = {"wavelet": wavelet_fix, "lab": lab_fix, "adain": adain_fix, "none": lambda target, source: target}
"""Functions by the value of the option `color_fix`."""
