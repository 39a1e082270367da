"""Colour fixes: the result keeps its detail and takes the input's colours.

Wavelet as in StableSR (Wang et al., IJCV 2024): five levels of an a-trous B-spline; AdaIN as in Huang and Belongie (ICCV
2017). Both take and give tensors that are not clamped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
REACH = 2**LEVELS - 1
"""Pixels that five levels look to each side."""
BAND = 512
"""Rows that are worked on at a time: the result is the same, the memory is not."""
ADAIN_EPSILON = 1e-5


def wavelet_fix(target: Tensor, source: Tensor) -> Tensor:
    """High frequencies of `target` on low frequencies of `source`, both `(B, 3, H, W)`."""
    result, height = torch.empty_like(target), target.shape[2]
    for top in range(0, height, BAND):
        bottom = min(top + BAND, height)
        first, last = max(top - REACH, 0), min(bottom + REACH, height)
        change = low_frequencies(source[:, :, first:last] - target[:, :, first:last])
        result[:, :, top:bottom] = target[:, :, top:bottom] + change[:, :, top - first : bottom - first]
    return result


def low_frequencies(image: Tensor) -> Tensor:
    """What five a-trous levels leave of `image` `(B, C, H, W)`: a blur with an edge-replicating kernel of 1 2 1 a level."""
    kernel = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    row = kernel.view(1, 1, 1, 3).expand(channels, 1, 1, 3)
    column = kernel.view(1, 1, 3, 1).expand(channels, 1, 3, 1)
    for level in range(LEVELS):
        gap = 2**level
        padded = F.pad(image, (gap, gap, gap, gap), mode="replicate")
        image = F.conv2d(F.conv2d(padded, row, dilation=gap, groups=channels), column, dilation=gap, groups=channels)
    return image


def adain_fix(target: Tensor, source: Tensor) -> Tensor:
    """`target` with each channel's mean and standard deviation of `source`, both `(B, 3, H, W)`."""
    target_mean, target_std = _mean_and_std(target)
    source_mean, source_std = _mean_and_std(source)
    return (target - target_mean) / target_std * source_std + source_mean


def _mean_and_std(image: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(image, dim=(2, 3), keepdim=True)
    return mean, (variance + ADAIN_EPSILON).sqrt()


COLOR_FIXES = {"wavelet": wavelet_fix, "adain": adain_fix, "none": lambda target, source: target}
"""By the name of the option `color_fix`."""
