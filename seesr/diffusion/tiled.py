"""Tiled diffusion: a model that saw small pictures runs on large ones in overlapping, Gaussian-weighted tiles.

MultiDiffusion (Bar-Tal et al., ICML 2023) with the Gaussian weights of Mixture of Diffusers (Jimenez, 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seesr.tiling import Tiles

GAUSSIAN_WIDTH = 0.25
"""Standard deviation of the weights, as a share of the tile."""

TileModel = Callable[[Tensor, int, Tensor, "list[int]"], Tensor]
"""(latents, timestep, image, numbers of the tiles) to the UNet's prediction: `(tiles * B, ...)`, tile by tile."""


def tile_weights(height: int, width: int) -> Tensor:
    """Weights `(height, width)` of one tile, largest in the middle, symmetric, nowhere zero."""
    rows, columns = (
        torch.exp(-(((torch.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * GAUSSIAN_WIDTH**2)) for side in (height, width)
    )
    return rows[:, None] * columns


def cut(values: Tensor, corner: tuple[int, int], tiles: Tiles, factor: int = 1) -> Tensor:
    """One tile's part of a map that has `factor` pixels for each latent."""
    top, left = (start * factor for start in corner)
    return values[..., top : top + tiles.tile_height * factor, left : left + tiles.tile_width * factor]


def predict_tiled(model: TileModel, latents: Tensor, timestep: int, image: Tensor, tiles: Tiles) -> Tensor:
    """The prediction for `latents` `(B, C, h, w)`, put together from tiles.

    `image` `(B, 3, H, W)` is what the ControlNet sees; each tile gets its own part of it.
    """
    corners, batch = tiles.corners, len(latents)
    if len(corners) == 1:
        return model(latents, timestep, image, [0])
    factor = image.shape[2] // tiles.height
    weights = tile_weights(tiles.tile_height, tiles.tile_width).to(latents)
    total, weight = torch.zeros_like(latents), torch.zeros_like(latents[:1, :1])
    for numbers, real in tiles.groups():
        noisy = torch.cat([cut(latents, corners[number], tiles) for number in numbers])
        pixels = torch.cat([cut(image, corners[number], tiles, factor) for number in numbers])
        predictions = model(noisy, timestep, pixels, numbers).split(batch)
        for number, prediction in zip(numbers[:real], predictions[:real], strict=True):
            cut(total, corners[number], tiles).add_(prediction * weights)
            cut(weight, corners[number], tiles).add_(weights)
    return total / weight
