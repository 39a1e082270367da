"""The measure of seams."""

from __future__ import annotations

import numpy as np
from helpers import photograph
from PIL import Image

from seesr.evaluation.seams import seam_ratio


def test_a_seam_is_seen() -> None:
    pixels = np.asarray(photograph("astronaut.png"), dtype=int).copy()
    before = seam_ratio(Image.fromarray(pixels.astype(np.uint8)), [200], [200])
    pixels[200:] += 12
    pixels[:, 200:] += 12
    assert seam_ratio(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), [200], [200]) > 1.5 * before
