"""Geometry of overlapping tiles: how a map is cut, where each tile begins, and which tiles go through a network together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

ROUND = 8
"""Sides of tiles are multiples of this: the UNet halves its feature maps three times."""


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
