"""Transparency: what is hidden does not shine through."""

from __future__ import annotations

import numpy as np
from helpers import MODES, photo_in_mode
from PIL import Image

from seesr import Upscaler
from seesr.images.alpha import bleed

KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


def test_colours_hidden_under_transparency_do_not_shine_through(upscaler: Upscaler) -> None:
    # An orange disc on transparent black, as many programs write it.
    disc = Image.new("L", (480, 480))
    rows, columns = np.mgrid[-240:240, -240:240]
    disc = Image.fromarray(((rows**2 + columns**2 < 150**2) * 255).astype(np.uint8)).resize((48, 48), Image.Resampling.BOX)
    colours = np.zeros((48, 48, 3), np.uint8)
    colours[np.asarray(disc) > 0] = (255, 140, 0)
    photo = Image.fromarray(colours)
    photo.putalpha(disc)
    image = upscaler.upscale(photo, scale=2, steps=1, seed=0).image
    assert image.mode == "RGBA"
    shown = Image.new("RGB", image.size, (255, 140, 0))
    shown.paste(image, mask=image.getchannel("A"))
    darkest = np.asarray(shown, dtype=int)[..., 0].min()
    assert darkest > 200, "no dark ring"


def test_bleeding_keeps_what_is_visible() -> None:
    alpha = Image.new("L", (9, 7))
    alpha.paste(255, (3, 2, 6, 5))
    photo = photo_in_mode(9, 7)
    filled = np.asarray(bleed(photo, alpha), dtype=int)
    visible = np.asarray(alpha) > 0
    assert (filled[visible] == np.asarray(photo)[visible]).all()
    low, high = filled[visible].min(axis=0), filled[visible].max(axis=0)
    assert ((filled >= low) & (filled <= high)).all(), "all colours come from visible pixels"
    assert bleed(photo, Image.new("L", (9, 7))).size == (9, 7)
    assert bleed(photo, Image.new("L", (9, 7), 1)) is photo
