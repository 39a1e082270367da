"""Are there seams? Gradients along the borders of tiles, compared with gradients elsewhere."""

from __future__ import annotations

import numpy as np
from PIL import Image

from seesr.evaluation.metrics import luma
from seesr.images.sizes import Sizes
from seesr.tiling import Tiles


def seam_ratio(image: Image.Image, rows: list[int], columns: list[int], period: int = 1) -> float:
    """Mean absolute difference of luma across the lines before `rows` and `columns`, over that across other lines.

    1 where nothing marks the lines; a picture's own structure moves it by a few hundredths. Any picture that was enlarged
    is steeper across some lines than across others, again and again at the same distance; with that as `period` only
    lines of the same phase are compared.
    """
    y = luma(image)
    at, elsewhere = [], []
    for axis, places in ((0, rows), (1, columns)):
        steps = np.abs(np.diff(y, axis=axis)).mean(axis=1 - axis)
        lines = np.arange(1, len(steps) + 1)
        is_border = np.isin(lines, places)
        comparable = np.isin(lines % period, [place % period for place in places]) & ~is_border
        at.append(steps[is_border])
        elsewhere.append(steps[comparable])
    return float(np.concatenate(at).mean() / np.concatenate(elsewhere).mean())


def tile_borders(tiles: Tiles, factor: int, sizes: Sizes) -> tuple[list[int], list[int]]:
    """(rows, columns) of the working picture before which a tile begins or behind which one ends."""
    found: list[set[int]] = [set(), set()]
    lengths = tiles.tile_height, tiles.tile_width
    for corner in tiles.corners:
        for places, start, length, side in zip(found, corner, lengths, sizes.working[::-1], strict=True):
            for edge in (start, start + length):
                place = edge * factor - sizes.margin
                if 0 < place < side:
                    places.add(place)
    return sorted(found[0]), sorted(found[1])
