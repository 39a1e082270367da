"""Tiled diffusion: a model that saw small pictures runs on large ones in overlapping, Gaussian-weighted tiles.

MultiDiffusion (Bar-Tal et al., ICML 2023) with the Gaussian weights of Mixture of Diffusers (Jimenez, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

GAUSSIAN_WIDTH = 0.25
"""Standard deviation of the weights, as a share of the tile."""

TileModel = Callable[[Tensor, int, Tensor], Tensor]
"""(latents, timestep, image) of a tile to the UNet's prediction for it."""


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side: evenly spread, at least `overlap` shared, the last one ending at the border."""
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(number * (length - tile) / (count - 1)) for number in range(count)]


def tile_weights(height: int, width: int) -> Tensor:
    """Weights `(height, width)` of one tile, largest in the middle, symmetric, nowhere zero."""
    rows, columns = (
        torch.exp(-(((torch.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * GAUSSIAN_WIDTH**2)) for side in (height, width)
    )
    return rows[:, None] * columns


def predict_tiled(model: TileModel, latents: Tensor, timestep: int, image: Tensor, tile: int, overlap: int) -> Tensor:
    """The prediction for `latents` `(B, C, h, w)`, put together from tiles where a side is longer than `tile`.

    `image` `(B, 3, H, W)` is what the ControlNet sees; each tile gets its own part of it.
    """
    height, width = latents.shape[2:]
    if height <= tile and width <= tile:
        return model(latents, timestep, image)
    factor = image.shape[2] // height
    tile_height, tile_width = min(tile, height), min(tile, width)
    weights = tile_weights(tile_height, tile_width).to(latents)
    total, weight = torch.zeros_like(latents), torch.zeros_like(latents[:1, :1])
    for top in tile_starts(height, tile, overlap):
        for left in tile_starts(width, tile, overlap):
            rows, columns = slice(top, top + tile_height), slice(left, left + tile_width)
            pixels = (
                slice(top * factor, (top + tile_height) * factor),
                slice(left * factor, (left + tile_width) * factor),
            )
            prediction = model(latents[..., rows, columns], timestep, image[..., pixels[0], pixels[1]])
            total[..., rows, columns] += prediction * weights
            weight[..., rows, columns] += weights
    return total / weight
