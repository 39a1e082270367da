"""Tiles of a side."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from seesr.tiling import balanced_side, tile_starts


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 3000), tile=st.integers(16, 128), share=st.floats(0, 0.5))
def test_tiles_cover_a_side(length: int, tile: int, share: float) -> None:
    overlap = int(tile * share)
    most = math.ceil((length - overlap) / (tile - overlap))
    tile = balanced_side(length, tile, overlap)
    starts = tile_starts(length, tile, overlap)
    assert len(starts) <= max(1, most)
    assert starts[0] == 0
    assert max(starts) == max(0, length - tile)
    assert all(0 < later - earlier <= tile - overlap for earlier, later in zip(starts, starts[1:], strict=False))
