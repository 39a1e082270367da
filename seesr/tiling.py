"""Geometry of overlapping tiles: their size, where each of them starts, and which tiles run in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

SIDE_MULTIPLE = 8
"""Sides of tiles are multiples of this, because the UNet halves its feature maps three times."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of a latent map of `height` x `width`: at most `side` a side, with at least `overlap` shared by neighbours.

    `fixed` tiles have exactly that side unless the map is smaller, and each pass has `tiles_per_pass` of them unless the map
    has fewer: shapes stay the same, so that networks compiled for one picture are reused for the next.
    """

    height: int
    width: int
    side: int
    overlap: int
    tiles_per_pass: int = 1
    fixed: bool = False

    @property
    def tile_height(self) -> int:
        return min(self.side, self.height) if self.fixed else balanced_side(self.height, self.side, self.overlap)

    @property
    def tile_width(self) -> int:
        return min(self.side, self.width) if self.fixed else balanced_side(self.width, self.side, self.overlap)

    @property
    def particles_per_pass(self) -> int:
        """Particles of a picture in one pass, if a pass holds all tiles of a picture."""
        return max(1, self.tiles_per_pass // len(self.corners))

    @property
    def corners(self) -> list[tuple[int, int]]:
        """(top, left) of each tile, row by row; a single tile if the map is not larger than a tile."""
        tops = tile_starts(self.height, self.tile_height, self.overlap)
        return [(top, left) for top in tops for left in tile_starts(self.width, self.tile_width, self.overlap)]

    def passes(self) -> Iterator[tuple[list[int], int]]:
        """Indices of the tiles of each pass, and how many of them count: `fixed` passes are filled up with the last tile."""
        count = len(self.corners)
        for first in range(0, count, self.tiles_per_pass):
            indices = list(range(first, min(first + self.tiles_per_pass, count)))
            repeats = self.tiles_per_pass - len(indices) if self.fixed and count > self.tiles_per_pass else 0
            yield indices + indices[-1:] * repeats, len(indices)


def balanced_side(length: int, tile: int, overlap: int) -> int:
    """The smallest side of as many tiles as needed with side `tile` to cover `length`, so that overlaps stay small.

    It is a multiple of `SIDE_MULTIPLE`, unless a single tile covers `length`.
    """
    if length <= tile:
        return length
    count = math.ceil((length - overlap) / (tile - overlap))
    smallest = math.ceil((length + (count - 1) * overlap) / count)
    return min(tile, math.ceil(smallest / SIDE_MULTIPLE) * SIDE_MULTIPLE)


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start along a side: evenly spaced, at least `overlap` shared, and the last tile ends at the border."""
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]
