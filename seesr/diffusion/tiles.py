"""Tiled diffusion: a model that saw small pictures runs on large ones in overlapping, Gaussian-weighted tiles.

MultiDiffusion (Bar-Tal et al., ICML 2023) with the Gaussian weights of Mixture of Diffusers (Jimenez, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

GAUSSIAN_WIDTH = 0.25
"""Standard deviation of the weights, as a share of the tile."""

ROUND = 8

TileModel = Callable[[Tensor, int, Tensor, "list[int]"], Tensor]
"""(latents, timestep, image, numbers of the tiles) to the UNet's prediction: `(tiles * B, ...)`, tile by tile."""


@dataclass(frozen=True)
class Tiles:
    """How a latent map of `height` x `width` is cut: longest side, shared part, and how many tiles go through at once.

    `fixed` tiles have that side wherever the map does, and always go through as many at once, in any map that has so many:
    what was compiled for one picture serves for the next.
    """

    height: int
    width: int
    side: int
    overlap: int
    at_once: int = 1
    fixed: bool = False

    @property
    def tile_height(self) -> int:
        return min(self.side, self.height) if self.fixed else fitting_side(self.height, self.side, self.overlap)

    @property
    def tile_width(self) -> int:
        return min(self.side, self.width) if self.fixed else fitting_side(self.width, self.side, self.overlap)

    @property
    def copies_at_once(self) -> int:
        """How many versions of a picture go through at once, where all its tiles do."""
        return max(1, self.at_once // len(self.corners))

    @property
    def corners(self) -> list[tuple[int, int]]:
        """(top, left) of each tile, row by row; one tile if neither side is longer than a tile's."""
        tops = tile_starts(self.height, self.tile_height, self.overlap)
        return [(top, left) for top in tops for left in tile_starts(self.width, self.tile_width, self.overlap)]

    def groups(self) -> Iterator[tuple[list[int], int]]:
        """Numbers of the tiles that go through at once, and how many of them count: fixed ones are filled up."""
        count = len(self.corners)
        for first in range(0, count, self.at_once):
            real = list(range(first, min(first + self.at_once, count)))
            filling = self.at_once - len(real) if self.fixed and count > self.at_once else 0
            yield real + real[-1:] * filling, len(real)


def fitting_side(length: int, tile: int, overlap: int) -> int:
    """The side of tiles that cover `length` in as many as tiles of `tile` would, sharing hardly more than `overlap`.

    A multiple of `ROUND` unless one tile covers it all: the UNet halves its maps three times.
    """
    if length <= tile:
        return length
    count = math.ceil((length - overlap) / (tile - overlap))
    least = math.ceil((length + (count - 1) * overlap) / count)
    return min(tile, math.ceil(least / ROUND) * ROUND)


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
