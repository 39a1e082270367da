"""A measure of seams: the gradients across tile borders, compared with the gradients elsewhere."""

from __future__ import annotations

import numpy as np
from PIL import Image

from seesr.evaluation.metrics import luma
from seesr.images.sizes import Sizes
from seesr.tiling import Tiles


def seam_ratio(image: Image.Image, rows: list[int], columns: list[int], period: int = 1) -> float:
    """Mean absolute luma difference across the borders before `rows` and `columns`, over that across all other lines.

    About 1 without seams; the content of the picture changes it by a few hundredths. Upscaling makes the gradients of any
    picture periodic; with that period in pixels as `period`, only lines of the same phase are compared.
    """
    y = luma(image)
    at_borders, elsewhere = [], []
    for axis, borders in ((0, rows), (1, columns)):
        gradients = np.abs(np.diff(y, axis=axis)).mean(axis=1 - axis)
        lines = np.arange(1, len(gradients) + 1)
        is_border = np.isin(lines, borders)
        comparable = np.isin(lines % period, [border % period for border in borders]) & ~is_border
        at_borders.append(gradients[is_border])
        elsewhere.append(gradients[comparable])
    return float(np.concatenate(at_borders).mean() / np.concatenate(elsewhere).mean())


def tile_borders(tiles: Tiles, factor: int, sizes: Sizes) -> tuple[list[int], list[int]]:
    """(rows, columns) of the working picture before which a tile begins or ends; `factor` is pixels per latent pixel."""
    borders: list[set[int]] = [set(), set()]
    lengths = tiles.tile_height, tiles.tile_width
    for corner in tiles.corners:
        for positions, start, length, side in zip(borders, corner, lengths, sizes.working[::-1], strict=True):
            for edge in (start, start + length):
                position = edge * factor - sizes.margin
                if 0 < position < side:
                    positions.add(position)
    return sorted(borders[0]), sorted(borders[1])
