"""Colour fixes: the output keeps its detail and takes the colours of the input.

Wavelet colour fix as in StableSR (Wang et al., IJCV 2024): five levels of an a-trous B-spline wavelet. AdaIN as in Huang
and Belongie (ICCV 2017). Neither clamps its result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
HALO = 2**LEVELS - 1
"""Pixels to each side on which a low-pass filtered pixel depends."""
STRIP_ROWS = 512
"""Rows that are filtered at a time: this saves memory and does not change the result."""
ADAIN_EPSILON = 1e-5


def wavelet_fix(target: Tensor, source: Tensor) -> Tensor:
    """The high frequencies of `target` added to the low frequencies of `source`, both `(B, 3, H, W)`."""
    result, height = torch.empty_like(target), target.shape[2]
    for top in range(0, height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, height)
        first, last = max(top - HALO, 0), min(bottom + HALO, height)
        change = low_frequencies(source[:, :, first:last] - target[:, :, first:last])
        result[:, :, top:bottom] = target[:, :, top:bottom] + change[:, :, top - first : bottom - first]
    return result


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


COLOR_FIXES = {"wavelet": wavelet_fix, "adain": adain_fix, "none": lambda target, source: target}
"""Functions by the value of the option `color_fix`."""
