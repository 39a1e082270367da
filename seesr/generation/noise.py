"""The noise that pictures begin from: each picture's own, drawn on the CPU, whatever the device and the batch."""

from __future__ import annotations

import torch
from torch import Tensor

ALMOST_PARALLEL = 0.9995
"""Cosine of the angle from which on an arc is a line."""


def draw_noise(
    generator: torch.Generator, shape: tuple[int, ...], variation_seed: int | None = None, variation_strength: float = 0.0
) -> Tensor:
    """White noise, float32, moved on an arc towards that of `variation_seed` by `variation_strength`, 0 to 1."""
    noise = torch.randn(shape, generator=generator)
    if variation_seed is None or variation_strength == 0:
        return noise
    other = torch.randn(shape, generator=torch.Generator().manual_seed(variation_seed))
    return slerp(noise, other, variation_strength)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Spherical interpolation (Shoemake 1985) of whole tensors; `share` 0 is `first`, 1 is `second`."""
    cosine = (first * second).sum() / (first.norm() * second.norm())
    if cosine.abs() > ALMOST_PARALLEL:
        return torch.lerp(first, second, share)
    angle = torch.acos(cosine)
    return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)
