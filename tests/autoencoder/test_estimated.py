"""Pictures too large for exact tiles: the statistics are estimated, which is near and is said."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import photograph

import seesr.autoencoder.vae
from seesr import Upscaler


def test_estimated_tiles_are_near_and_say_so(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = photograph("coffee.png", (150, 50, 310, 170))
    exact = upscaler.upscale(photo, scale=3, steps=1, seed=0)
    monkeypatch.setattr(seesr.autoencoder.vae, "MAX_EXACT_MAP_BYTES", 1000)
    estimated = upscaler.upscale(photo, scale=3, steps=1, seed=0, vae_tile=32)
    assert (exact.vae, estimated.vae) == ("whole", "estimated tiles")
    assert not exact.notes
    assert estimated.notes == ["too large for an exact tiled VAE: its statistics were estimated from sample tiles"]
    error = np.asarray(exact.image, dtype=float) - np.asarray(estimated.image, dtype=float)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 40
