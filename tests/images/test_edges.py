"""Edge enhancement: details gain, noise does not, strips and sizes change nothing; and the stage in the pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from seesr import Upscaler
from seesr.images.edges import enhance_edges, estimate_noise


def detail(image: Image.Image) -> float:
    """Mean absolute difference to its own blur, in grey levels."""
    grey = image.convert("L")
    blurred = grey.filter(ImageFilter.GaussianBlur(2))
    return np.abs(np.asarray(grey, dtype=float) - np.asarray(blurred, dtype=float)).mean()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photograph("coffee.png", (100, 60, 300, 200))


def noise(deviation: float) -> Image.Image:
    values = 128 + deviation * np.random.default_rng(0).standard_normal((160, 160, 1))
    return Image.fromarray(values.repeat(3, axis=2).round().clip(0, 255).astype(np.uint8))


def test_strength_zero_is_the_picture_itself(photo: Image.Image) -> None:
    assert enhance_edges(photo, 0) is photo


@pytest.mark.parametrize(("strength", "least"), [(1, 1.2), (2, 1.4)])
def test_details_of_a_photograph_gain(photo: Image.Image, strength: float, least: float) -> None:
    assert detail(enhance_edges(photo, strength)) > least * detail(photo)


@pytest.mark.parametrize("deviation", [3, 10, 25])
def test_noise_hardly_gains(deviation: float) -> None:
    grain = noise(deviation)
    assert estimate_noise(np.asarray(grain)) == pytest.approx(deviation, rel=0.1)
    before, after = (np.asarray(image, dtype=float).std() for image in (grain, enhance_edges(grain, 2)))
    assert after < 1.1 * before


def test_brightness_and_colour_stay(photo: Image.Image) -> None:
    before, after = (np.asarray(image, dtype=float).mean(axis=(0, 1)) for image in (photo, enhance_edges(photo, 1)))
    assert np.abs(before - after).max() < 1


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), strength=st.floats(0.1, 2))
def test_strips_change_nothing_at_any_size(width: int, height: int, strength: float) -> None:
    photo = photograph("astronaut.png", (100, 50, 100 + width, 50 + height))
    whole = enhance_edges(photo, strength)
    strips = enhance_edges(photo, strength, strip_rows=24)
    assert whole.size == photo.size
    assert np.abs(np.asarray(whole, dtype=int) - np.asarray(strips, dtype=int)).max() <= 1


def test_in_the_pipeline_it_makes_edges_stronger_and_keeps_colours(upscaler: Upscaler, photo: Image.Image) -> None:
    small = photo.crop((0, 0, 64, 64))
    plain, strong = (upscaler.upscale(small, scale=2, steps=1, seed=0, edges=strength) for strength in (0, 1))
    assert "edges" not in plain.seconds
    assert list(strong.seconds)[1:4] == ["clean", "edges", "resize"]
    assert strong.settings()["edges"] == 1
    assert detail(strong.image) > 1.15 * detail(plain.image)
    before, after = (np.asarray(result.image, dtype=float).mean(axis=(0, 1)) for result in (plain, strong))
    assert np.abs(before - after).max() < 1, "low frequencies are those of the picture without enhanced edges"
