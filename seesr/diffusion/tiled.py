"""Tiled diffusion: a model trained on small pictures runs on large ones in overlapping tiles with Gaussian weights.

MultiDiffusion (Bar-Tal et al., ICML 2023) with the Gaussian weights of Mixture of Diffusers (Jimenez, 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seesr.tiling import Tiles

GAUSSIAN_WIDTH = 0.25
"""Standard deviation of the weights as a share of a tile's side."""

TileModel = Callable[[Tensor, int, Tensor, "list[int]"], Tensor]
"""(latents, timestep, image, indices of tiles) to the UNet's prediction; batches are `(tiles * B, ...)`, tile by tile."""


def tile_weights(height: int, width: int) -> Tensor:
    """Weights `(height, width)` of one tile: symmetric, largest in the centre, nowhere zero."""
    rows, columns = (
        torch.exp(-(((torch.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * GAUSSIAN_WIDTH**2)) for side in (height, width)
    )
    return rows[:, None] * columns


def crop_tile(values: Tensor, corner: tuple[int, int], tiles: Tiles, factor: int = 1) -> Tensor:
    """The tile at `corner` of `values`, which have `factor` pixels for each latent pixel along a side."""
    top, left = (start * factor for start in corner)
    return values[..., top : top + tiles.tile_height * factor, left : left + tiles.tile_width * factor]


def predict_tiled(model: TileModel, latents: Tensor, timestep: int, image: Tensor, tiles: Tiles) -> Tensor:
    """The prediction for `latents` `(B, C, h, w)`, blended from the predictions of tiles.

    `image` `(B, 3, H, W)` is the input of the ControlNet and is cropped for each tile.
    """
    corners, batch = tiles.corners, len(latents)
    if len(corners) == 1:
        return model(latents, timestep, image, [0])
    factor = image.shape[2] // tiles.height
    weights = tile_weights(tiles.tile_height, tiles.tile_width).to(latents)
    total, weight = torch.zeros_like(latents), torch.zeros_like(latents[:1, :1])
    for indices, count in tiles.passes():
        noisy = torch.cat([crop_tile(latents, corners[index], tiles) for index in indices])
        pixels = torch.cat([crop_tile(image, corners[index], tiles, factor) for index in indices])
        predictions = model(noisy, timestep, pixels, indices).split(batch)
        for index, prediction in zip(indices[:count], predictions[:count], strict=True):
            crop_tile(total, corners[index], tiles).add_(prediction * weights)
            crop_tile(weight, corners[index], tiles).add_(weights)
    return total / weight
